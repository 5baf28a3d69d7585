import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NBD_CMD_READ } from '#tsnbd/protocol/constants.js';
import { connect } from '#tsnbd/transport/connect.js';
import { areReadsPiped, isSendLimitLarge, largePipes } from '../large-pipes.js';
import { attachBy } from '../server/served-image.js';
import { serveTraced } from './served.js';

const MIB = 1_048_576;

/** A worker asks for a limit of its reads first, then for a larger send buffer: as root, then as anybody. */
test.each([
  ['granted', 'setsockopt:error=EPERM:when=9+', areReadsPiped],
  ['granted up to net.core.wmem_max only', 'setsockopt:error=EPERM:when=2', areReadsPiped && isSendLimitLarge],
  ['not granted at all', 'setsockopt:error=EPERM:when=2+', false],
])(
  'large reads are right where a large send buffer is %s, and copied where it is small',
  async (_, inject, byReference) => {
    const folder = mkdtempSync(join(tmpdir(), 'tsnbd-buffer-'));
    const [image, path] = [join(folder, 'disk.raw'), join(folder, 'sock')];
    const content = Buffer.alloc(4 * MIB);
    for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(at, at);
    writeFileSync(image, content);
    const tracing = ['-e', 'trace=setsockopt', '-e', `inject=${inject}`];
    const served = await serveTraced(path, tracing, '-f', 'raw', '-t', image);
    try {
      const client = await attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(30_000)));
      for (const [offsetBytes, lengthBytes] of [
        [0, MIB],
        [4_095, 65_536],
        [3 * MIB, MIB],
      ] as const) {
        const { error, data } = await client.ask({ type: NBD_CMD_READ, offsetBytes, lengthBytes });
        expect(error).toBe(0);
        expect(data.equals(content.subarray(offsetBytes, offsetBytes + lengthBytes))).toBe(true);
      }
      expect(largePipes(served.pid)).toBe(byReference ? 1 : 0);
      client.close();
      expect(await served.stop()).toBe(0);
    } finally {
      served.kill();
      rmSync(folder, { recursive: true });
    }
  },
);
