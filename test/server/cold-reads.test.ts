import { beforeEach, describe, expect, test } from 'vitest';
import type { Image } from '#tsnbd/image/image.js';
import { NBD_CMD_READ, NBD_CMD_WRITE, NBD_REQUEST_BYTES } from '#tsnbd/protocol/constants.js';
import { encodeRequest } from '#tsnbd/protocol/request.js';
import { transmissionFlags } from '#tsnbd/protocol/request-rules.js';
import { ColdReads } from '#tsnbd/server/cold-reads.js';
import type { Reads } from '#tsnbd/server/reads.js';
import { RequestInput } from '#tsnbd/server/request-input.js';

const SIZE_BYTES = 1_048_576;
const SLOW_MS = 5;
const QUICK_MS = 0.01;
/** How often the thread has slept. */
let sleeps: number;
let log: string[];
const image = { cache: (offset: number) => log.push(`cache ${offset}`) } as unknown as Image;
const reads = { isBeginnable: ({ lengthBytes }: { lengthBytes: number }) => lengthBytes < 65_536 } as unknown as Reads;
const flags = transmissionFlags({ readOnly: false, multiConn: true, rotational: false, fastZero: false, trim: true });
const rules = {
  sizeBytes: SIZE_BYTES,
  readOnly: false,
  minimumBlockBytes: 1,
  replyStyle: 'simple',
  statusContexts: 0,
  flags,
} as const;

function bytesOf(type: number, offsetBytes: number, lengthBytes: number): Buffer {
  const data = type === NBD_CMD_WRITE ? lengthBytes : 0;
  const bytes = Buffer.alloc(NBD_REQUEST_BYTES + data);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  encodeRequest(view, 0, { type, flags: 0, cookieHigh: 0, cookieLow: 1, offsetBytes, lengthBytes });
  return bytes;
}

function withInput(...requests: Buffer[]): { cold: ColdReads; input: RequestInput } {
  const input = new RequestInput('simple', Buffer.concat(requests));
  return {
    cold: new ColdReads(image, rules, input, reads, () => sleeps),
    input,
  };
}

beforeEach(() => {
  log = [];
  sleeps = 7;
});

/** A read that has waited for a disk. */
function slow(cold: ColdReads, elapsedMs = SLOW_MS, lengthBytes = 4_096): boolean {
  expect(cold.isTimed()).toBe(true);
  cold.begins();
  sleeps += 1;
  return cold.wasSlow(elapsedMs, lengthBytes);
}

/** Reads until one is timed, which takes long. */
function suspect(cold: ColdReads): void {
  while (!cold.isTimed());
  sleeps += 1;
  expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false); // the scheduler's doing, perhaps
}

describe('reads', () => {
  test('are timed now and then while they are quick, and each once two were slow', () => {
    const { cold } = withInput();
    const timed = Array.from({ length: 64 }, () => cold.isTimed() && cold.wasSlow(QUICK_MS, 4_096));
    expect(timed.filter((isSlow) => isSlow)).toEqual([]);
    const first = Array.from({ length: 16 }, () => cold.isTimed()).indexOf(true);
    expect(first).toBe(15);
    expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false);
    expect(slow(cold)).toBe(true);
    expect(cold.isCold).toBe(true);
    for (let count = 0; count < 64; count += 1) expect(cold.isTimed()).toBe(true);
    expect(cold.isTimed()).toBe(false);
    expect(cold.isCold).toBe(false);
  });

  test('that are long may take longer', () => {
    const { cold } = withInput();
    suspect(cold);
    expect(slow(cold, 0.4, 1_048_576)).toBe(false);
    expect(slow(cold, 0.4)).toBe(true);
  });

  test('that took long without a sleep have waited for a processor: they are not timed any more', () => {
    const { cold } = withInput();
    suspect(cold);
    expect(cold.isTimed()).toBe(true);
    expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false);
    expect(cold.isTimed()).toBe(false);
    expect(cold.isCold).toBe(false);
  });

  test('are looked at less and less often where quick ones take long, and as often as before once one waited for a disk', () => {
    const { cold } = withInput();
    const untilTimed = () => 1 + Array.from({ length: 1_024 }, () => false).findIndex(() => cold.isTimed());
    for (const reads of [16, 32, 64, 128, 256, 512, 512]) {
      cold.mayHaveSlept();
      expect(untilTimed()).toBe(reads);
      expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false);
      expect(cold.isTimed()).toBe(true);
      cold.begins();
      expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false); // without a sleep
    }
    cold.mayHaveSlept();
    suspect(cold);
    expect(slow(cold)).toBe(true);
    for (let count = 0; count < 64; count += 1) expect(cold.isTimed()).toBe(true);
    expect(untilTimed()).toBe(16);
  });

  test('are looked at for a while after one that took long, and then less often', () => {
    const { cold } = withInput();
    suspect(cold);
    for (let count = 0; count < 16; count += 1) {
      expect(cold.isTimed()).toBe(true);
      cold.begins();
      expect(cold.wasSlow(QUICK_MS, 4_096)).toBe(false);
    }
    expect(Array.from({ length: 32 }, () => cold.isTimed()).indexOf(true)).toBe(31);
  });

  test("are a disk's still after one that took long without a sleep among others", () => {
    const { cold } = withInput();
    suspect(cold);
    expect(slow(cold)).toBe(true);
    expect(cold.isTimed()).toBe(true);
    expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false);
    expect(cold.isTimed()).toBe(true);
    expect(cold.isCold).toBe(true);
  });

  test('are not taken for slow by a sleep for the client before them', () => {
    const { cold } = withInput();
    suspect(cold);
    cold.mayHaveSlept();
    sleeps += 1;
    expect(cold.isTimed()).toBe(true);
    cold.begins();
    expect(cold.wasSlow(SLOW_MS, 4_096)).toBe(false);
    expect(cold.isCold).toBe(false);
  });

  test('are not taken for slow by a sleep before one that is timed first', () => {
    const { cold } = withInput();
    suspect(cold);
    cold.mayHaveSlept();
    sleeps += 1;
    while (cold.isTimed()) expect(cold.wasSlow(QUICK_MS, 4_096)).toBe(false);
    cold.mayHaveSlept();
    suspect(cold); // nobody knows what was slept before it
  });
});

test('past the page cache wait for a disk, each of them', () => {
  const direct = { isDirect: true } as unknown as Image;
  const cold = new ColdReads(direct, rules, new RequestInput('simple', new Uint8Array(0)), reads, () => sleeps);
  for (let batch = 0; batch < 3; batch += 1) {
    expect(slow(cold)).toBe(true);
    expect(cold.isCold).toBe(true);
    cold.mayHaveSlept();
  }
});

describe('announcing', () => {
  test('tells the read whose turn it is and every whole one behind it, once', () => {
    const { cold, input } = withInput(
      bytesOf(NBD_CMD_READ, 1_000, 512),
      bytesOf(NBD_CMD_WRITE, 2_000, 512),
      bytesOf(NBD_CMD_READ, 3_000, 512),
      bytesOf(NBD_CMD_READ, 4_000, 131_072),
      bytesOf(NBD_CMD_READ, SIZE_BYTES, 512), // beyond the end: refused later
      bytesOf(NBD_CMD_READ, 5_000, 512).subarray(0, 20),
    );
    input.start += NBD_REQUEST_BYTES;
    cold.announce(false);
    expect(log).toEqual(['cache 1000', 'cache 3000', 'cache 4000']);
    input.makeRoom();
    input.bytes.set(bytesOf(NBD_CMD_READ, 5_000, 512), input.end - 20);
    input.end += NBD_REQUEST_BYTES - 20;
    cold.announce(false);
    expect(log.slice(3)).toEqual(['cache 5000']);
  });

  test('leaves out those that will be begun beside others', () => {
    const { cold, input } = withInput(
      bytesOf(NBD_CMD_READ, 1_000, 131_072),
      bytesOf(NBD_CMD_READ, 2_000, 512),
      bytesOf(NBD_CMD_READ, 3_000, 131_072),
    );
    input.start += NBD_REQUEST_BYTES;
    cold.announce(true);
    expect(log).toEqual(['cache 1000', 'cache 3000']);
  });
});
