import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
import type { RawClient } from '../server/raw-client.js';
import { attachBy } from '../server/served-image.js';
import { type Served, serveTraced } from './served.js';

const MIB = 1_048_576;
/** strace lets no such call begin before: the fallocate(2) by which a server tries out what it can, too. */
const slow = (call: string, seconds = 4) => ['-e', `trace=${call}`, '-e', `inject=${call}:delay_enter=${seconds}s`];

/** Of those that a trace tells of. */
const callsDone = (trace: string) => readFileSync(trace, 'utf8').split('= 0').length - 1;

/** A client, as it has negotiated. */
type Attach = () => Promise<RawClient>;

/** Serves an image that `make` makes, with such calls slow, for as long as `act` takes; `trace` is where strace tells of those calls. */
async function whileServed(
  make: (image: string) => void,
  tracing: readonly string[],
  options: readonly string[],
  act: (attach: Attach, served: Served, trace: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-slow-'));
  const [image, path, trace] = [join(folder, 'disk'), join(folder, 'sock'), join(folder, 'trace')];
  make(image);
  const served = await serveTraced(path, ['-o', trace, ...tracing], ...options, '-t', '-e', '0', image);
  try {
    await act(async () => attachBy(await connect({ kind: 'unix', path }, AbortSignal.timeout(30_000))), served, trace);
  } finally {
    served.kill();
    rmSync(folder, { recursive: true });
  }
}

test('a trim and a zeroing that take seconds hold up their own connections only', () => {
  const make = (image: string) => writeFileSync(image, Buffer.alloc(4 * MIB, 1));
  return whileServed(make, slow('fallocate'), ['-f', 'raw'], async (attach, served) => {
    const [trims, zeroes, other, leaving] = [await attach(), await attach(), await attach(), await attach()];
    const answered: string[] = [];
    const waiting = [
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
    expect((await Promise.all(waiting)).map(({ error }) => error)).toEqual([0, 0]);
    const zeroed = await late.ask({ type: NBD_CMD_READ, offsetBytes: 2 * MIB, lengthBytes: MIB });
    expect(zeroed.data.equals(Buffer.alloc(MIB))).toBe(true);
    for (const client of [trims, zeroes, other, late]) client.close();
    expect(await served.stop()).toBe(0);
  });
});

test('a flush of a qcow2 image that takes seconds holds up nobody who reads a table or needs a new cluster', () => {
  const make = (image: string) => {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', image, '64M']);
    execFileSync('qemu-io', ['-c', 'write -P 7 32M 4k', image], { stdio: 'ignore' });
  };
  return whileServed(make, slow('fdatasync', 3), [], async (attach, _, trace) => {
    const [flushes, other] = [await attach(), await attach()];
    const data = Buffer.alloc(4_096, 1);
    expect((await flushes.ask({ type: NBD_CMD_WRITE, data })).error).toBe(0);
    const before = callsDone(trace);
    const flushed = flushes.ask({ type: NBD_CMD_FLUSH });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await other.ask({ type: NBD_CMD_READ, offsetBytes: 32 * MIB, lengthBytes: 1 })).data).toEqual(Buffer.of(7));
    expect((await other.ask({ type: NBD_CMD_WRITE, offsetBytes: 48 * MIB, data })).error).toBe(0);
    expect(callsDone(trace)).toBe(before);
    expect((await flushed).error).toBe(0);
    expect(callsDone(trace)).toBeGreaterThanOrEqual(before + 2);
    for (const client of [flushes, other]) client.close();
  });
});

test.each(['raw', 'qcow2'])(
  'of a %s image what is to be durable (FUA), and a flush, is answered behind a sync',
  (format) => {
    const make = (image: string) => execFileSync('qemu-img', ['create', '-q', '-f', format, image, '4M']);
    return whileServed(make, ['-e', 'trace=fdatasync'], ['-f', format], async (attach, _, trace) => {
      const client = await attach();
      const range = { offsetBytes: MIB, lengthBytes: MIB };
      for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH]) {
        const data = Buffer.alloc(MIB, 7);
        expect((await client.ask({ type: NBD_CMD_WRITE, offsetBytes: MIB, data })).error).toBe(0);
        const before = callsDone(trace);
        const asked = type === NBD_CMD_FLUSH ? { type } : { type, flags: NBD_CMD_FLAG_FUA, ...range };
        expect((await client.ask(asked)).error).toBe(0);
        expect(callsDone(trace)).toBeGreaterThan(before);
      }
      client.close();
    });
  },
);
