import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EIO,
  NBD_ENOSPC,
  NBD_EPERM,
} from '#tsnbd/protocol/constants.js';
import { PIPED_WRITE_BYTES_MIN } from '#tsnbd/server/piped-writes.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import { CACHED, CALLS, type Loop, PIPE, PIPED, startLoop, WITHIN_BLOCK } from './loop-harness.js';
import { seeded } from './seeded.js';

const MIB = 1_048_576;
const LARGE_BYTES = 262_144;
const ENOSPC = 28;
const EIO = 5;
/** Longer than a read of a socket waits at a time. */
const SILENT_MS = 1_300;
/** With one core everything is copied. */
const hasCores = availableParallelism() > 1;
const random = seeded(20_261_127);
const noise = Buffer.from(Array.from({ length: 4_099 }, () => random(256)));

let loop: Loop;

function start(options: Parameters<typeof startLoop>[0] = {}): Loop {
  loop = startLoop({ sizeBytes: 16 * MIB, pipedBytesMax: Number.MAX_SAFE_INTEGER, ...options });
  return loop;
}

afterEach(async () => {
  loop.client.close();
  await loop.end;
});

/** No two places of a few MiB are alike. */
const bytesFor = (length: number, seed: number) => Buffer.alloc(length, noise.subarray(seed % 97));
const encode = (offsetBytes: number, data: Buffer, flags = 0) =>
  loop.client.encode({ type: NBD_CMD_WRITE, offsetBytes, data, flags });

async function expectReplies(...errors: readonly number[]): Promise<void> {
  const replies = [];
  for (let reply = 0; reply < errors.length; reply += 1) replies.push((await loop.client.reply()).error);
  expect(replies).toEqual(errors);
}

function expectWritten(...writes: readonly (readonly [offset: number, data: Buffer])[]): void {
  for (const [offset, data] of writes) {
    expect(data.equals(loop.memory.subarray(offset, offset + data.length)), `what is at ${offset}`).toBe(true);
  }
}

describe.runIf(hasCores)('large writes', () => {
  test('go by reference, any number behind each other, and those that are small do not', async () => {
    const { client, count } = start();
    const writes = Array.from({ length: 40 }, (_, index) => {
      const length = [LARGE_BYTES, 4_096, LARGE_BYTES + 1, PIPED_WRITE_BYTES_MIN, 512][index % 5] ?? 0;
      return [index * 300_001, bytesFor(length, index)] as const;
    });
    client.send(Buffer.concat(writes.map(([offset, data]) => encode(offset, data))));
    await expectReplies(...writes.map(() => 0));
    expectWritten(...writes);
    expect(count(PIPED)).toBeGreaterThan(3 * LARGE_BYTES);
  });

  test.each([1, 3_000, 70_000])('that come in pieces of %i bytes', async (pieceBytes) => {
    const { client } = start();
    const writes = [0, 1].map((index) => [index * MIB + 5, bytesFor(PIPED_WRITE_BYTES_MIN + 77, index)] as const);
    const bytes = Buffer.concat(writes.map(([offset, data]) => encode(offset, data)));
    // A byte at a time: not all of them, but more than a pipe has places.
    const until = pieceBytes === 1 ? 2_000 : bytes.length;
    for (let at = 0; at < until; at += pieceBytes) client.send(bytes.subarray(at, Math.min(at + pieceBytes, until)));
    if (until < bytes.length) {
      await sleep(100);
      client.send(bytes.subarray(until));
    }
    await expectReplies(0, 0);
    expectWritten(...writes);
  });

  test('of more than the input holds', async () => {
    const { client, count } = start();
    const data = bytesFor(3 * INPUT_BYTES + 11, 3);
    client.send(Buffer.concat([encode(9, data), encode(8 * MIB, data)]));
    await expectReplies(0, 0);
    expectWritten([9, data], [8 * MIB, data]);
    expect(count(PIPED)).toBeGreaterThan(3 * INPUT_BYTES);
  });

  test('with requests behind them that see what was written', async () => {
    const { client } = start();
    const data = bytesFor(LARGE_BYTES, 1);
    const read = client.encode({ type: NBD_CMD_READ, offsetBytes: 4_096, lengthBytes: 8_192 });
    client.send(Buffer.concat([encode(0, data), encode(2 * MIB, data), read, encode(4_096, bytesFor(512, 9))]));
    await expectReplies(0, 0);
    expect((await client.reply()).data.equals(data.subarray(4_096, 12_288))).toBe(true);
    await expectReplies(0);
    expectWritten([4_096, bytesFor(512, 9)]);
  });

  test.each([
    ['at once', []],
    ['by a client whose writes end anywhere', [30, 5_000, 104_857, 300_001, 300_077]],
    ['in pieces that are no blocks', Array.from({ length: 70 }, (_, index) => (index + 1) * 7_321)],
  ])('reach the image in whole blocks, for the rest of one would be read first: sent %s', async (_, ends) => {
    const { client, count } = start();
    const writes = [0, 1].map((index) => [index * MIB, bytesFor(LARGE_BYTES, index)] as const);
    const bytes = Buffer.concat(writes.map(([offset, data]) => encode(offset, data)));
    for (const [index, end] of [...ends, bytes.length].entries()) {
      client.send(bytes.subarray(ends[index - 1] ?? 0, end));
      await sleep(1);
    }
    await expectReplies(0, 0);
    expectWritten(...writes);
    expect(count(PIPED)).toBeGreaterThan(0);
    expect(count(WITHIN_BLOCK)).toBe(0);
  });

  test('of which a block comes in more pieces than the pipe has places do not wait for one', async () => {
    const { client, count } = start();
    const data = bytesFor(LARGE_BYTES, 2);
    const bytes = Buffer.concat([encode(0, data), encode(MIB, data)]);
    client.send(bytes.subarray(0, bytes.length - 100_000));
    await expectReplies(0);
    for (let at = bytes.length - 100_000; at < bytes.length - 99_000; at += 1) client.send(bytes.subarray(at, at + 1));
    await sleep(100);
    client.send(bytes.subarray(bytes.length - 99_000));
    await expectReplies(0);
    expectWritten([0, data], [MIB, data]);
    expect(count(WITHIN_BLOCK)).toBe(0);
  });

  test('do not keep the reads behind them from being announced', async () => {
    // Each read is one of a disk, and too long to be begun beside others.
    const { client, count } = start({ slowFds: [-1] });
    const read = () => client.encode({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: 2 * MIB });
    const write = encode(MIB, bytesFor(LARGE_BYTES, 3));
    client.send(Buffer.concat([read(), write.subarray(0, 1_000)]));
    await client.reply();
    await sleep(50); // the loop waits for the rest of the write
    client.send(write.subarray(1_000));
    await expectReplies(0);
    client.send(read());
    await client.reply();
    expect(count(PIPED)).toBeGreaterThan(0);
    expect(count(CACHED)).toBe(2);
  });

  test('with FUA are on stable storage before the reply', async () => {
    const { client, count } = start();
    client.send(
      Buffer.concat([encode(0, bytesFor(LARGE_BYTES, 0)), encode(MIB, bytesFor(LARGE_BYTES, 1), NBD_CMD_FLAG_FUA)]),
    );
    await expectReplies(0, 0);
    expect(count(CALLS.DURABLE)).toBe(1);
    expectWritten([MIB, bytesFor(LARGE_BYTES, 1)]);
  });

  test('whose client says nothing for a while in the middle', async () => {
    const { client } = start();
    const data = bytesFor(LARGE_BYTES, 5);
    const bytes = Buffer.concat([encode(0, data), encode(MIB, data)]);
    for (const piece of [bytes.subarray(0, 100_000), bytes.subarray(100_000, 300_000), bytes.subarray(300_000)]) {
      client.send(piece);
      await sleep(SILENT_MS);
    }
    await expectReplies(0, 0);
    expectWritten([0, data], [MIB, data]);
  });
});

describe.runIf(hasCores)('what the image does not take out of a pipe', () => {
  test('is written as all else', async () => {
    const { client, count } = start({ pipedBytesMax: 10_000 });
    const writes = [0, 1, 2, 3].map((index) => [index * MIB, bytesFor(LARGE_BYTES, index)] as const);
    client.send(Buffer.concat(writes.map(([offset, data]) => encode(offset, data))));
    await expectReplies(0, 0, 0, 0);
    expectWritten(...writes);
    expect(count(PIPED)).toBeGreaterThan(0);
    expect(count(PIPED) % 10_000).toBe(0);
  });

  test('fails with what the write says, and the next request is understood', async () => {
    const { client, fail, count } = start({ pipedBytesMax: 10_000 });
    fail(CALLS.WRITE, ENOSPC);
    client.send(Buffer.concat([0, 1, 2].map((index) => encode(index * MIB, bytesFor(LARGE_BYTES, index)))));
    await expectReplies(NBD_ENOSPC, NBD_ENOSPC, NBD_ENOSPC);
    expect(count(PIPED)).toBeLessThanOrEqual(3 * 10_000); // after an error nothing more is taken
    expect(count(CALLS.WRITE)).toBe(3);
    fail(CALLS.WRITE, 0);
    client.send(encode(5 * MIB, bytesFor(LARGE_BYTES, 5)));
    await expectReplies(0);
    expectWritten([5 * MIB, bytesFor(LARGE_BYTES, 5)]);
    fail(CALLS.WRITE, EIO);
    client.send(encode(6 * MIB, bytesFor(LARGE_BYTES, 6)));
    await expectReplies(NBD_EIO);
  });
});

describe.runIf(hasCores)('what the image could not write out of a pipe', () => {
  test('is not written again: some file systems tell only once that they have lost what came before', async () => {
    const { client, fail, count } = start();
    fail(PIPE, EIO);
    client.send(Buffer.concat([0, 1, 2].map((index) => encode(index * MIB, bytesFor(LARGE_BYTES, index)))));
    expect((await client.reply()).error).toBeGreaterThanOrEqual(0); // whose first bytes may have come with the request
    await expectReplies(NBD_EIO, NBD_EIO);
    expect(count(CALLS.WRITE)).toBeLessThanOrEqual(1);
    fail(PIPE, 0);
    client.send(encode(5 * MIB, bytesFor(LARGE_BYTES, 5)));
    await expectReplies(0);
    expectWritten([5 * MIB, bytesFor(LARGE_BYTES, 5)]);
  });
});

describe('no byte goes into a pipe', () => {
  test('of a write that is refused', async () => {
    const { client, count } = start({ readOnly: true });
    client.send(Buffer.concat([encode(0, bytesFor(LARGE_BYTES, 0)), encode(MIB, bytesFor(LARGE_BYTES, 1))]));
    await expectReplies(NBD_EPERM, NBD_EPERM);
    expect(count(PIPED)).toBe(0);
  });

  test('for an image that takes none', async () => {
    const { client, count } = start({ pipedBytesMax: -1 });
    client.send(Buffer.concat([encode(0, bytesFor(LARGE_BYTES, 0)), encode(MIB, bytesFor(LARGE_BYTES, 1))]));
    await expectReplies(0, 0);
    expectWritten([0, bytesFor(LARGE_BYTES, 0)], [MIB, bytesFor(LARGE_BYTES, 1)]);
    expect(count(PIPED)).toBe(0);
  });
});

describe('in the middle of a large write', () => {
  /** One is there as a whole, and half of another. */
  function sendOneAndAHalf(): Buffer {
    const data = bytesFor(LARGE_BYTES, 4);
    const bytes = Buffer.concat([encode(0, data), encode(MIB, data)]);
    loop.client.send(bytes.subarray(0, bytes.length - LARGE_BYTES / 2));
    return data;
  }

  test('a client that leaves is told of, and what was answered is flushed', async () => {
    const { client, end, count } = start();
    const data = sendOneAndAHalf();
    await expectReplies(0);
    client.finish();
    expect(await end).toMatchObject({ kind: 'failed', code: 'lost' });
    expectWritten([0, data]);
    expect(count(CALLS.FLUSH)).toBe(1);
  });

  test('a stop does not wait for the rest', async () => {
    const { end, stop, count } = start();
    sendOneAndAHalf();
    await expectReplies(0);
    await sleep(50); // the loop waits for more
    stop();
    expect(await end).toMatchObject({ kind: 'left', how: 'stopped' });
    expect(count(CALLS.FLUSH)).toBe(1);
  });

  test('a halt waits for the rest, and takes nothing behind it', async () => {
    const { client, end, halt } = start();
    const data = sendOneAndAHalf();
    await expectReplies(0);
    await sleep(50); // the loop is in the second
    halt();
    const next = encode(2 * MIB, bytesFor(LARGE_BYTES, 7));
    client.send(Buffer.concat([data.subarray(LARGE_BYTES / 2), next]));
    await expectReplies(0);
    expect(await end).toMatchObject({ kind: 'left', how: 'halted' });
    expectWritten([0, data], [MIB, data], [2 * MIB, Buffer.alloc(LARGE_BYTES)]);
  });
});
