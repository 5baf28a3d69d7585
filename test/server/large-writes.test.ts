import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NBD_CMD_WRITE } from '#tsnbd/protocol/constants.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import { CALLS, type Loop, startLoop, WITHIN_BLOCK } from './loop-harness.js';
import { seeded } from './seeded.js';

const MIB = 1_048_576;
const LARGE_BYTES = 2 * INPUT_BYTES;
const random = seeded(20_261_127);
const noise = Buffer.from(Array.from({ length: 4_099 }, () => random(256)));

let loop: Loop;
beforeEach(() => {
  loop = startLoop({ sizeBytes: 16 * MIB });
});
afterEach(async () => {
  loop.client.close();
  await loop.end;
});

/** No two places of a few MiB are alike. */
const bytesFor = (length: number, seed: number) => Buffer.alloc(length, noise.subarray(seed % 97));
const encode = (offsetBytes: number, data: Buffer) => loop.client.encode({ type: NBD_CMD_WRITE, offsetBytes, data });

async function expectReplies(count: number): Promise<void> {
  for (let reply = 0; reply < count; reply += 1) expect((await loop.client.reply()).error).toBe(0);
}

function expectWritten(...writes: readonly (readonly [offset: number, data: Buffer])[]): void {
  for (const [offset, data] of writes) {
    expect(data.equals(loop.memory.subarray(offset, offset + data.length)), `what is at ${offset}`).toBe(true);
  }
}

describe('writes of more than the input holds', () => {
  test.each([
    ['at once', []],
    ['by a client whose pieces end anywhere', [30, 5_000, 1_104_857, 2_300_001, 2_300_077]],
    ['in pieces that are no blocks', Array.from({ length: 70 }, (_, index) => (index + 1) * 57_321)],
  ])('reach the image in whole blocks, for the rest of one would be read first: sent %s', async (_, ends) => {
    const writes = [0, 1].map((index) => [index * 4 * MIB, bytesFor(LARGE_BYTES, index)] as const);
    const bytes = Buffer.concat(writes.map(([offset, data]) => encode(offset, data)));
    for (const [index, end] of [...ends, bytes.length].entries()) {
      loop.client.send(bytes.subarray(ends[index - 1] ?? 0, end));
      await sleep(1);
    }
    await expectReplies(2);
    expectWritten(...writes);
    expect(loop.count(WITHIN_BLOCK)).toBe(0);
  });

  test('are whole wherever they begin and end', async () => {
    const data = bytesFor(LARGE_BYTES + 11, 3);
    loop.client.send(Buffer.concat([encode(9, data), encode(8 * MIB - 1, data), encode(12 * MIB, bytesFor(77, 5))]));
    await expectReplies(3);
    expectWritten([9, data], [8 * MIB - 1, data], [12 * MIB, bytesFor(77, 5)]);
  });
});

describe('in the middle of one', () => {
  /** One is there as a whole, and half of another, which the loop has begun to write. */
  async function sendOneAndAHalf(): Promise<Buffer> {
    const data = bytesFor(LARGE_BYTES, 4);
    const bytes = Buffer.concat([encode(0, data), encode(4 * MIB, data)]);
    loop.client.send(bytes.subarray(0, bytes.length - LARGE_BYTES / 2));
    await expectReplies(1);
    await sleep(50);
    return data;
  }

  test('a stop does not wait for the rest, and is told as a stop', async () => {
    await sendOneAndAHalf();
    loop.stop();
    expect(await loop.end).toMatchObject({ kind: 'left', how: 'stopped' });
    expect(loop.count(CALLS.FLUSH)).toBe(1);
  });

  test('a halt waits for the rest', async () => {
    const data = await sendOneAndAHalf();
    loop.halt();
    loop.client.send(data.subarray(LARGE_BYTES / 2));
    await expectReplies(1);
    expect(await loop.end).toMatchObject({ kind: 'left', how: 'halted' });
    expectWritten([0, data], [4 * MIB, data]);
  });
});
