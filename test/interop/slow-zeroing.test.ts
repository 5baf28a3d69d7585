import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import { connect } from '#tsnbd/transport/connect.js';
import { attachBy } from '../server/served-image.js';
import { serveTraced } from './served.js';

const MIB = 1_048_576;
/** strace lets no fallocate(2) begin before: the one by which a server tries out what it can, too. */
const SLOW = ['-e', 'trace=fallocate', '-e', 'inject=fallocate:delay_enter=4s'];

test('a trim and a zeroing that take seconds hold up their own connections only', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-slow-'));
  const [image, path] = [join(folder, 'disk.raw'), join(folder, 'sock')];
  writeFileSync(image, Buffer.alloc(4 * MIB, 1));
  const served = await serveTraced(path, SLOW, '-f', 'raw', '-t', '-e', '0', image);
  const attach = async () => attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(30_000)));
  try {
    const [trims, zeroes, other, leaving] = [await attach(), await attach(), await attach(), await attach()];
    const answered: string[] = [];
    const slow = [
      trims.ask({ type: NBD_CMD_TRIM, offsetBytes: MIB, lengthBytes: MIB }).finally(() => answered.push('trim')),
      zeroes
        .ask({ type: NBD_CMD_WRITE_ZEROES, offsetBytes: 2 * MIB, lengthBytes: MIB })
        .finally(() => answered.push('zero')),
    ];
    for (let value = 2; value < 12; value += 1) {
      const data = Buffer.alloc(65_536, value);
      expect((await other.ask({ type: NBD_CMD_WRITE, data })).error).toBe(0);
      expect((await other.ask({ type: NBD_CMD_WRITE, flags: NBD_CMD_FLAG_FUA, data })).error).toBe(0);
      expect((await other.ask({ type: NBD_CMD_FLUSH })).error).toBe(0);
      expect((await leaving.ask({ type: NBD_CMD_READ, lengthBytes: 65_536 })).data.equals(data)).toBe(true);
    }
    leaving.send(leaving.encode({ type: NBD_CMD_DISC }));
    expect(await leaving.end()).toHaveLength(0);
    const late = await attach();
    expect((await late.ask({ type: NBD_CMD_READ, lengthBytes: 1 })).data).toEqual(Buffer.of(11));
    expect(answered).toEqual([]);
    expect((await Promise.all(slow)).map(({ error }) => error)).toEqual([0, 0]);
    const zeroed = await late.ask({ type: NBD_CMD_READ, offsetBytes: 2 * MIB, lengthBytes: MIB });
    expect(zeroed.data.equals(Buffer.alloc(MIB))).toBe(true);
    for (const client of [trims, zeroes, other, late]) client.close();
    expect(await served.stop()).toBe(0);
  } finally {
    served.kill();
    rmSync(folder, { recursive: true });
  }
});
