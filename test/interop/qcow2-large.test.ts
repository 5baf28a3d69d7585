import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { emptyExtent, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { withImage } from '../image/qcow2/open-qcow2.js';
import { runTsnbd } from './served.js';

const TIB = 2 ** 40;
const PIECE = 300_032;

let folder: string;
const disk = () => join(folder, 'disk.qcow2');
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-large-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Throws where a pattern is not there. */
function qemuIo(...commands: string[]): void {
  const args = commands.flatMap((command) => ['-c', command]);
  execFileSync('qemu-io', ['-f', 'qcow2', ...args, disk()]);
}

function ours(offsetBytes: number): Buffer {
  const bytes = Buffer.alloc(PIECE, 0xee);
  withImage(disk(), (image) => expect(image.read(offsetBytes, PIECE, bytes, 0)).toBe(0));
  return bytes;
}

describe('a disk of many terabytes is written and read near its end, and where numbers become longer', () => {
  test.each([
    [8, []],
    [8, ['-o', 'extended_l2=on']],
    // Its clusters are beyond 1 TiB in the file too.
    [8, ['-o', 'cluster_size=2M,preallocation=metadata']],
    [64, []],
    [64, ['-o', 'extended_l2=on,cluster_size=2M']],
    [64, ['-o', 'compat=0.10']],
  ] as const)('%i TiB %j', async (tebibytes, options) => {
    const sizeBytes = tebibytes * TIB;
    const created = await runTsnbd('create', '-f', 'qcow2', ...options, disk(), String(sizeBytes));
    expect(created).toMatchObject({ status: 0, stderr: '' });
    // Each begins and ends within a cluster, and all but the last lie on both sides of a border.
    const places = [2 ** 32, TIB, 2 ** 42, 0.75 * sizeBytes, sizeBytes - 2 ** 30]
      .map((border) => border - 150_016)
      .concat(sizeBytes - PIECE);
    const opened = openImage(disk(), { readOnly: false });
    const images = [0, 1].map(() => imageFrom(structuredClone(opened.handle)));
    for (const [index, offsetBytes] of places.entries()) {
      const data = Buffer.alloc(PIECE, index + 1);
      expect(images[index % 2]?.write(offsetBytes, PIECE, data, 0, false)).toBe(0);
    }
    for (const offsetBytes of places) {
      const image = images[0];
      expect(image?.zero(offsetBytes + 512, 512, ZERO_MAY_PUNCH, false)).toBe(0);
    }
    const extent = emptyExtent();
    expect(images[1]?.status(sizeBytes - 2 ** 29, 2 ** 29, extent)).toBe(0);
    expect(extent.zero).toBe(!options.some((option) => option.includes('preallocation')));
    for (const image of images) image.close();
    opened.close();

    const checked = execFileSync('qemu-img', ['check', '--output=json', disk()], { encoding: 'utf8' });
    expect((await runTsnbd('check', '--json', disk())).stdout).toBe(checked);
    qemuIo(
      ...places.flatMap((offsetBytes, index) => [
        `read -P ${index + 1} ${offsetBytes} 512`,
        `read -P 0 ${offsetBytes + 512} 512`,
        `read -P ${index + 1} ${offsetBytes + 1_024} ${PIECE - 1_024}`,
        `write -P ${index + 101} ${offsetBytes + 100_352} 100352`,
      ]),
    );
    for (const [index, offsetBytes] of places.entries()) {
      const expected = Buffer.alloc(PIECE, index + 1)
        .fill(0, 512, 1_024)
        .fill(index + 101, 100_352, 200_704);
      expect(ours(offsetBytes).equals(expected)).toBe(true);
    }
  });
});
