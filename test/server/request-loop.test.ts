import { afterEach, describe, expect, test } from 'vitest';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_ESHUTDOWN,
} from '#tsnbd/protocol/constants.js';
import { BATCH_BYTES } from '#tsnbd/server/replies.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import { CALLS, HELD, type Loop, startLoop } from './loop-harness.js';
import type { AskedRequest } from './raw-client.js';

const MIB = 1_048_576;
const loops: Loop[] = [];

function start(...options: Parameters<typeof startLoop>): Loop {
  const loop = startLoop(...options);
  loops.push(loop);
  return loop;
}

afterEach(async () => {
  for (const loop of loops.splice(0)) {
    loop.client.close();
    await loop.end;
  }
});

/** Bytes that tell their place: a piece at the wrong offset is seen. */
function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at + seed) >>> 0, at);
  return bytes;
}

describe('requests that are in order', () => {
  test('read what is there', async () => {
    const { client, memory } = start();
    memory.set(pattern(MIB));
    const { error, data } = await client.ask({ type: NBD_CMD_READ, offsetBytes: 4_096, lengthBytes: 8_192 });
    expect(error).toBe(0);
    expect(data.equals(memory.slice(4_096, 12_288))).toBe(true);
  });

  test('write, and write with FUA', async () => {
    const { client, memory, count } = start();
    expect(await client.ask({ type: NBD_CMD_WRITE, offsetBytes: 512, data: pattern(1_024) })).toMatchObject({
      error: 0,
    });
    expect(count(CALLS.DURABLE)).toBe(0);
    const fua = { type: NBD_CMD_WRITE, offsetBytes: 0, data: pattern(512, 7), flags: NBD_CMD_FLAG_FUA };
    expect(await client.ask(fua)).toMatchObject({ error: 0 });
    expect(count(CALLS.DURABLE)).toBe(1);
    expect(Buffer.from(memory.slice(0, 1_536)).equals(Buffer.concat([pattern(512, 7), pattern(1_024)]))).toBe(true);
  });

  test.each([
    ['trim', NBD_CMD_TRIM],
    ['zeroes', NBD_CMD_WRITE_ZEROES],
  ])('%s, and the same with FUA', async (_, type) => {
    const { client, count } = start();
    expect(await client.ask({ type, lengthBytes: 512 })).toMatchObject({ error: 0 });
    expect(count(CALLS.DURABLE)).toBe(0);
    expect(await client.ask({ type, lengthBytes: 512, flags: NBD_CMD_FLAG_FUA })).toMatchObject({ error: 0 });
    expect(count(CALLS.DURABLE)).toBe(1);
  });

  test('flush, trim and write zeroes reach the image', async () => {
    const { client, memory, count } = start();
    memory.fill(1);
    expect(await client.ask({ type: NBD_CMD_WRITE_ZEROES, offsetBytes: 512, lengthBytes: 512 })).toMatchObject({
      error: 0,
    });
    expect(memory.slice(0, 1_536).reduce((sum, byte) => sum + byte, 0)).toBe(1_024);
    expect(await client.ask({ type: NBD_CMD_TRIM, lengthBytes: 512 })).toMatchObject({ error: 0 });
    expect(await client.ask({ type: NBD_CMD_FLUSH })).toMatchObject({ error: 0 });
    expect([count(CALLS.ZERO), count(CALLS.TRIM), count(CALLS.FLUSH)]).toEqual([1, 1, 1]);
  });

  test('cache succeeds and changes nothing', async () => {
    const { client, count } = start();
    expect(await client.ask({ type: NBD_CMD_CACHE, offsetBytes: 512, lengthBytes: 512 })).toMatchObject({ error: 0 });
    expect([CALLS.WRITE, CALLS.ZERO, CALLS.TRIM, CALLS.FLUSH].map(count)).toEqual([0, 0, 0, 0]);
  });

  test('of length 0 succeed and never reach the image', async () => {
    const { client, count } = start();
    for (const type of [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]) {
      expect(await client.ask({ type, lengthBytes: 0 })).toMatchObject({ error: 0 });
    }
    expect([CALLS.READ, CALLS.WRITE, CALLS.TRIM, CALLS.ZERO].map(count)).toEqual([0, 0, 0, 0]);
  });

  test('that came with the handshake are answered first', async () => {
    const asked = start().client.encode({ type: NBD_CMD_READ, lengthBytes: 16 });
    const whole = start({ received: asked });
    expect((await whole.client.read(16 + 16)).readUInt32BE(4)).toBe(0);
    const half = start({ received: asked.subarray(0, 13) });
    half.client.send(asked.subarray(13));
    expect((await half.client.read(16 + 16)).readUInt32BE(4)).toBe(0);
  });

  test('are answered in any number at once, and one byte at a time', async () => {
    const { client, memory } = start();
    memory.set(pattern(MIB));
    const requests = Array.from({ length: 600 }, (_, index) =>
      client.encode({ type: NBD_CMD_READ, offsetBytes: index * 512, lengthBytes: 1_024 }),
    );
    client.send(Buffer.concat(requests));
    for (let index = 0; index < requests.length; index += 1) {
      const { error, data } = await client.reply();
      expect(error).toBe(0);
      expect(data.equals(memory.slice(index * 512, index * 512 + 1_024))).toBe(true);
    }
    for (const byte of client.encode({ type: NBD_CMD_WRITE, data: pattern(64) })) {
      client.send(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    expect((await client.reply()).error).toBe(0);
  });
});

describe('a silent client', () => {
  test('is served as before when it speaks again, and the middle of its request is kept', async () => {
    const { client, memory } = start();
    memory.set(pattern(MIB));
    const read = { type: NBD_CMD_READ, offsetBytes: 512, lengthBytes: 4_096 };
    for (let round = 0; round < 2; round += 1) {
      await client.ask(read);
      await new Promise((resolve) => setTimeout(resolve, 1_300));
      expect((await client.ask(read)).data.equals(memory.slice(512, 4_608))).toBe(true);
      const write = client.encode({ type: NBD_CMD_WRITE, data: pattern(1_024, round) });
      client.send(write.subarray(0, 500));
      await new Promise((resolve) => setTimeout(resolve, 1_300));
      client.send(write.subarray(500));
      expect((await client.reply()).error).toBe(0);
      expect(Buffer.from(memory.slice(0, 1_024)).equals(pattern(1_024, round))).toBe(true);
    }
  });
});

describe('large requests', () => {
  const sizes = [BATCH_BYTES - 16, BATCH_BYTES - 15, INPUT_BYTES - 28, INPUT_BYTES - 27, 32 * MIB];
  test.each(sizes)('of %i bytes are written and read back', async (length) => {
    const { client, memory } = start({ sizeBytes: 32 * MIB + 512 });
    const data = pattern(length, 99);
    expect(await client.ask({ type: NBD_CMD_WRITE, offsetBytes: 512, data })).toMatchObject({ error: 0 });
    expect(data.equals(memory.slice(512, 512 + length))).toBe(true);
    const read = await client.ask({ type: NBD_CMD_READ, offsetBytes: 512, lengthBytes: length });
    expect(read.error).toBe(0);
    expect(read.data.equals(data)).toBe(true);
  });

  test('with FUA are on stable storage before the reply', async () => {
    const { client, count } = start({ sizeBytes: 4 * MIB });
    await client.ask({ type: NBD_CMD_WRITE, data: pattern(3 * MIB), flags: NBD_CMD_FLAG_FUA });
    expect(count(CALLS.FLUSH)).toBe(1);
  });

  test('that fail in a piece say so, write no more, and the next request is understood', async () => {
    const { client, fail, count } = start({ sizeBytes: 4 * MIB });
    const write = client.encode({ type: NBD_CMD_WRITE, data: pattern(3 * MIB) });
    client.send(write.subarray(0, INPUT_BYTES));
    await expect.poll(() => count(CALLS.WRITE)).toBeGreaterThan(0);
    fail(CALLS.WRITE, -1);
    client.send(write.subarray(INPUT_BYTES, 2 * INPUT_BYTES));
    await expect.poll(() => count(HELD)).toBe(1);
    const failed = count(CALLS.WRITE);
    fail(CALLS.WRITE, 28);
    await new Promise((resolve) => setTimeout(resolve, 50));
    fail(CALLS.WRITE, 0);
    client.send(write.subarray(2 * INPUT_BYTES));
    expect(await client.reply()).toMatchObject({ error: NBD_ENOSPC });
    expect(count(CALLS.WRITE)).toBe(failed);
    expect(await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 })).toMatchObject({ error: 0 });
  });

  test('for a read-only image are read and thrown away', async () => {
    const { client, count } = start({ sizeBytes: 4 * MIB, readOnly: true });
    expect(await client.ask({ type: NBD_CMD_WRITE, data: pattern(3 * MIB) })).toMatchObject({ error: NBD_EPERM });
    expect(await client.ask({ type: NBD_CMD_WRITE, data: pattern(512) })).toMatchObject({ error: NBD_EPERM });
    expect(await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 })).toMatchObject({ error: 0 });
    expect(count(CALLS.WRITE)).toBe(0);
  });
});

describe('requests that are refused', () => {
  const READ_WHOLE = { type: NBD_CMD_READ, lengthBytes: 512 };
  const refusals: readonly [string, AskedRequest, number][] = [
    ['an unknown command', { type: 99 }, NBD_EINVAL],
    ['a command without what it needs', { type: NBD_CMD_BLOCK_STATUS, lengthBytes: 512 }, NBD_EINVAL],
    ['an unknown flag', { ...READ_WHOLE, flags: 1 << 9 }, NBD_EINVAL],
    ['a read beyond the end', { type: NBD_CMD_READ, offsetBytes: MIB - 511, lengthBytes: 512 }, NBD_EINVAL],
    ['a write beyond the end', { type: NBD_CMD_WRITE, offsetBytes: MIB - 511, data: pattern(512) }, NBD_ENOSPC],
    ['a write of zeroes beyond the end', { type: NBD_CMD_WRITE_ZEROES, offsetBytes: MIB, lengthBytes: 1 }, NBD_ENOSPC],
    ['a trim beyond the end', { type: NBD_CMD_TRIM, offsetBytes: MIB, lengthBytes: 1 }, NBD_EINVAL],
    ['an offset near 2^64', { ...READ_WHOLE, offsetBytes: 2 ** 64 - 2 ** 12 }, NBD_EINVAL],
    ['a read of 2 GiB', { type: NBD_CMD_READ, lengthBytes: 2 ** 31 }, NBD_EINVAL],
    ['a flush of a part', { type: NBD_CMD_FLUSH, lengthBytes: 512 }, NBD_EINVAL],
  ];
  test.each(refusals)('%s gets an error, and the connection goes on', async (_, request, error) => {
    const { client, count } = start();
    expect(await client.ask(request)).toMatchObject({ error });
    expect(await client.ask(READ_WHOLE)).toMatchObject({ error: 0 });
    expect(Object.values(CALLS).reduce<number>((sum, call) => sum + count(call), 0)).toBe(1);
  });

  test('a misaligned request for an image of 4096-byte blocks', async () => {
    const { client } = start({ minimumBlockBytes: 4_096 });
    expect(await client.ask(READ_WHOLE)).toMatchObject({ error: NBD_EINVAL });
    expect(await client.ask({ type: NBD_CMD_READ, lengthBytes: 4_096 })).toMatchObject({ error: 0 });
  });

  test('a write of 2 GiB gets an error, then the connection ends', async () => {
    const { client, end } = start();
    expect(await client.ask({ type: NBD_CMD_WRITE, lengthBytes: 2 ** 31 })).toMatchObject({ error: NBD_EINVAL });
    await client.end();
    expect(await end).toMatchObject({ kind: 'failed', code: 'violation' });
  });

  test('a trim of 4 GiB less a sector, as the kernel sends it, is done', async () => {
    const { client, count } = start({ sizeBytes: 2 ** 32 });
    expect(await client.ask({ type: NBD_CMD_TRIM, lengthBytes: 2 ** 32 - 512 })).toMatchObject({ error: 0 });
    expect(count(CALLS.TRIM)).toBe(1);
  });
});

describe('a disk that fails', () => {
  const failures: readonly [string, AskedRequest, keyof typeof CALLS, number, number][] = [
    ['a read', { type: NBD_CMD_READ, lengthBytes: 4_096 }, 'READ', 5, NBD_EIO],
    ['a large read', { type: NBD_CMD_READ, lengthBytes: MIB }, 'READ', 5, NBD_EIO],
    ['a write to a full disk', { type: NBD_CMD_WRITE, data: pattern(512) }, 'WRITE', 28, NBD_ENOSPC],
    ['a write beyond a quota', { type: NBD_CMD_WRITE, data: pattern(512) }, 'WRITE', 122, NBD_ENOSPC],
    ['a flush', { type: NBD_CMD_FLUSH }, 'FLUSH', 5, NBD_EIO],
    ['a trim', { type: NBD_CMD_TRIM, lengthBytes: 512 }, 'TRIM', 5, NBD_EIO],
  ];
  test.each(failures)('%s is answered with its error and without data', async (_, request, call, errno, error) => {
    const { client, fail } = start();
    fail(CALLS[call], errno);
    expect(await client.ask(request)).toMatchObject({ error });
    fail(CALLS[call], 0);
    expect(await client.ask(request)).toMatchObject({ error: 0 });
  });

  test('that is slow to flush holds up no answer that is ready', async () => {
    const { client, fail } = start();
    fail(CALLS.FLUSH, -1);
    client.send(
      Buffer.concat([client.encode({ type: NBD_CMD_READ, lengthBytes: 512 }), client.encode({ type: NBD_CMD_FLUSH })]),
    );
    expect(await client.reply()).toMatchObject({ error: 0, cookie: 1 });
    fail(CALLS.FLUSH, 0);
    expect(await client.reply()).toMatchObject({ error: 0, cookie: 2 });
  });

  test('is told of when the last flush fails', async () => {
    const { client, fail, end } = start();
    await client.ask({ type: NBD_CMD_WRITE, data: pattern(512) });
    fail(CALLS.FLUSH, 5);
    client.send(client.encode({ type: NBD_CMD_DISC }));
    expect(await end).toMatchObject({ kind: 'failed', code: 'system', message: expect.stringContaining('EIO') });
  });
});

describe('the end of a connection', () => {
  test('DISC answers what came before and flushes what was written', async () => {
    const { client, count, end } = start();
    client.send(
      Buffer.concat([
        client.encode({ type: NBD_CMD_WRITE, data: pattern(512) }),
        client.encode({ type: NBD_CMD_READ, lengthBytes: 512 }),
        client.encode({ type: NBD_CMD_DISC }),
        client.encode({ type: NBD_CMD_READ, lengthBytes: 512 }),
      ]),
    );
    expect(await client.reply()).toMatchObject({ error: 0 });
    expect((await client.reply()).data.equals(pattern(512))).toBe(true);
    expect((await client.end()).length).toBe(0);
    expect(await end).toEqual({ kind: 'left', how: 'disconnected' });
    expect(count(CALLS.FLUSH)).toBe(1);
  });

  test('a client that only read leaves nothing to flush', async () => {
    const { client, count, end } = start();
    await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 });
    client.finish();
    expect(await end).toEqual({ kind: 'left', how: 'closed' });
    expect(count(CALLS.FLUSH)).toBe(0);
  });

  test('a client that leaves in the middle of a request loses nothing it wrote before', async () => {
    const { client, count, end } = start();
    await client.ask({ type: NBD_CMD_WRITE, data: pattern(512) });
    client.send(client.encode({ type: NBD_CMD_WRITE, data: pattern(512) }).subarray(0, 100));
    client.finish();
    expect(await end).toMatchObject({
      kind: 'failed',
      code: 'lost',
      message: 'the client left in the middle of a request',
    });
    expect([count(CALLS.WRITE), count(CALLS.FLUSH)]).toEqual([1, 1]);
  });

  test('a client that leaves in the middle of a large write', async () => {
    const { client, end } = start({ sizeBytes: 4 * MIB });
    client.send(client.encode({ type: NBD_CMD_WRITE, data: pattern(3 * MIB) }).subarray(0, 2 * MIB));
    client.finish();
    expect(await end).toMatchObject({ kind: 'failed', code: 'lost' });
  });

  test('garbage where a request should begin ends it, after the answers before', async () => {
    const { client, end } = start();
    client.send(Buffer.concat([client.encode({ type: NBD_CMD_READ, lengthBytes: 16 }), Buffer.alloc(64, 'x')]));
    expect(await client.reply()).toMatchObject({ error: 0 });
    await client.end();
    expect(await end).toMatchObject({ kind: 'failed', code: 'violation' });
  });

  test('a client that is gone when its answers are ready', async () => {
    const { client, fail, count, end } = start();
    fail(CALLS.READ, -1);
    client.send(client.encode({ type: NBD_CMD_READ, lengthBytes: 512 }));
    await expect.poll(() => count(CALLS.READ)).toBe(1);
    client.close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    fail(CALLS.READ, 0);
    expect(await end).toMatchObject({ kind: 'failed', code: 'lost', message: expect.stringContaining('EPIPE') });
  });

  test('a stop answers the request in hand, refuses what comes behind it, and flushes', async () => {
    const { client, fail, count, stop, end } = start();
    fail(CALLS.WRITE, -1);
    client.send(client.encode({ type: NBD_CMD_WRITE, data: pattern(512) }));
    await expect.poll(() => count(CALLS.WRITE)).toBe(1);
    client.send(client.encode({ type: NBD_CMD_READ, lengthBytes: 512 }));
    await new Promise((resolve) => setTimeout(resolve, 20));
    stop();
    fail(CALLS.WRITE, 0);
    expect(await client.reply()).toMatchObject({ error: 0 });
    expect(await client.reply()).toMatchObject({ error: NBD_ESHUTDOWN });
    expect((await client.end()).length).toBe(0);
    expect(await end).toEqual({ kind: 'left', how: 'stopped' });
    expect(count(CALLS.FLUSH)).toBe(1);
    expect(count(CALLS.READ)).toBe(0);
  });

  test('a stop ends an idle connection', async () => {
    const { client, stop, end } = start();
    await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 });
    stop();
    expect(await end).toEqual({ kind: 'left', how: 'stopped' });
  });
});
