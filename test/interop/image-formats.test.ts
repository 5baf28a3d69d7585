import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openImage } from '#tsnbd/image/open-image.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-formats-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** For LUKS QEMU times its hash, and gives up where the clock of processor time stands still meanwhile: seen, once in ten times. */
const TRIES_MAX = 10;

function make(path: string, format: string, options: readonly string[]): void {
  for (let tries = 1; ; tries += 1) {
    try {
      execFileSync('qemu-img', ['create', '-q', '-f', format, ...options, path, '4M'], { stdio: 'pipe' });
      return;
    } catch (error) {
      if (tries === TRIES_MAX || !String(error).includes('Unable to get accurate CPU usage')) throw error;
    }
  }
}

describe('an image that qemu-img makes is not taken for raw:', () => {
  it.each<[string, string, ...string[]]>([
    ['qcow', 'qcow'],
    ['qed', 'qed'],
    ['vmdk', 'vmdk'],
    ['vmdk', 'vmdk', '-o', 'subformat=monolithicFlat'],
    ['vdi', 'vdi'],
    ['vhdx', 'vhdx'],
    ['vhd', 'vpc'],
    ['vhd', 'vpc', '-o', 'subformat=fixed'],
    ['parallels', 'parallels'],
    ['luks', 'luks', '--object', 'secret,id=s,data=x', '-o', 'key-secret=s,iter-time=10'],
  ])('%s (%s %s %s %s %s)', (name, format, ...options) => {
    const path = join(folder, 'disk');
    make(path, format, options);
    expect(() => openImage(path, { readOnly: false })).toThrow(`${path} is a ${name} image`);
    openImage(path, { format: 'raw', readOnly: false }).close();
  });
});

it('a raw image that qemu-img makes is taken for raw', () => {
  const path = join(folder, 'disk');
  execFileSync('qemu-img', ['create', '-q', '-f', 'raw', path, '4M']);
  const image = openImage(path, { readOnly: true });
  expect(image).toMatchObject({ formatName: 'raw', sizeBytes: 4 << 20, notices: [] });
  image.close();
});

it.each(['0.10', '1.1'])('a qcow2 image that qemu-img makes (compat=%s) is taken for one', (compat) => {
  const path = join(folder, 'disk');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, path, '4M']);
  const image = openImage(path, { readOnly: true });
  expect(image).toMatchObject({ formatName: 'qcow2', sizeBytes: 4 << 20, notices: [] });
  image.close();
});
