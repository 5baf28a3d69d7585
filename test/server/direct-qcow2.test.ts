import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkImage } from '#tsnbd/image/check-image.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { finishWriting } from '#tsnbd/image/qcow2/open-writable.js';
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import { readAll, withFewSlices, withImage } from '../image/qcow2/open-qcow2.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from '../image/qcow2/qcow2-bytes.js';
import { long } from '../long.js';
import type { Terms } from './disk-model.js';
import { FuzzSession } from './fuzz-session.js';
import type { AskedRequest } from './raw-client.js';
import { agreement } from './reply-audit.js';
import { seeded } from './seeded.js';

const ROUNDS = long ? 600 : 40;
const BATCH_MAX = 48;
const CLIENTS = 3;
const BLOCK = 4_096;
/** A client has such a part of the disk for itself; its ends are within blocks. */
const PART_BYTES = 2_100_100;
const SIZE_BYTES = 8_388_608;
/** Tables in memory at a time: few, so that much waits for them. */
const SLICES = 8;

let folder: string;
const inFolder = (name: string) => join(folder, name);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-direct-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Requests past the page cache that are sent before the first is answered, and what each read of them is to tell. */
function anyBatch(random: (below: number) => number, from: number, model: Buffer) {
  const expected: (Buffer | undefined)[] = [];
  const batch = Array.from({ length: 1 + random(BATCH_MAX) }, (): AskedRequest => {
    const isWhole = random(8) > 0;
    const [unit, units] = isWhole ? [BLOCK, 4] : [1, 20_000];
    const lengthBytes = unit * (1 + random(units));
    const first = isWhole ? BLOCK - (from % BLOCK) : 0;
    const at = first + unit * random(Math.floor((model.length - first - lengthBytes) / unit));
    const range = { offsetBytes: from + at, lengthBytes };
    const part = model.subarray(at, at + lengthBytes);
    const kind = random(20);
    expected.push(kind < 4 ? Buffer.from(part) : undefined);
    if (kind < 4) return { type: NBD_CMD_READ, ...range };
    if (kind === 4) return { type: NBD_CMD_FLUSH, lengthBytes: 0 };
    part.fill(kind === 5 ? 0 : 1 + random(255));
    if (kind === 5) return { type: NBD_CMD_WRITE_ZEROES, ...range };
    const flags = kind === 6 ? NBD_CMD_FLAG_FUA : 0;
    return { type: NBD_CMD_WRITE, ...range, flags, data: Buffer.from(part) };
  });
  return { batch, expected };
}

/** One client: it alone writes to a part of the disk. */
async function work(session: FuzzSession, seed: number, from: number, model: Buffer): Promise<void> {
  const random = seeded(seed);
  for (let round = 0; round < ROUNDS; round += 1) {
    const { batch, expected } = anyBatch(random, from, model);
    for (const [index, { error, data }] of (await session.exchange(batch, random)).entries()) {
      const at = `seed ${seed}, round ${round}, request ${index}`;
      expect({ at, error }).toEqual({ at, error: 0 });
      const wanted = expected[index];
      if (wanted !== undefined && !data.equals(wanted)) expect.fail(`${at}: other bytes than were written`);
    }
    const lengthBytes = 20_000 + random(200_000);
    const range = { offsetBytes: from + random(model.length - lengthBytes), lengthBytes };
    const replies = await session.exchange(
      [
        { type: NBD_CMD_TRIM, ...range },
        { type: NBD_CMD_READ, ...range },
      ],
      random,
    );
    expect(replies.map(({ error }) => error)).toEqual([0, 0]);
    replies[1]?.data.copy(model, range.offsetBytes - from); // zeroes, or what it was
  }
}

function termsOfAll(): Terms {
  const agreed = agreement('structured', SIZE_BYTES, []);
  return {
    ...agreed,
    blockSizes: { ...agreed.blockSizes, minimum: 1 },
    readOnly: false,
    unannounced: { trim: false, fastZero: false },
  };
}

const EXTENDED_L2 = 16n;
const HAS_DATA_FILE = 4n;
const bytes = new Uint8Array(BLOCK).fill(3);
const compressed = new Map<number, Cluster>([[1, { kind: 'compressed', bytes }]]);
const backing = { backing: 'base.raw', extensions: [[BACKING_FORMAT, Buffer.from('raw')]] as const };

test.each<[string, Omit<Wish, 'sizeBytes'>]>([
  ['clusters of 4096', { clusterBits: 12, clusters: compressed }],
  ['clusters of 65536 on a backing file', { clusterBits: 16, ...backing }],
  ['subclusters of a part of a block', { clusterBits: 14, incompatible: EXTENDED_L2, ...backing }],
  [
    'a data file',
    { clusterBits: 12, incompatible: HAS_DATA_FILE, extensions: [[DATA_FILE_NAME, Buffer.from('data.raw')]] },
  ],
])('several clients at a time read what they wrote past the page cache to a qcow2 image: %s', async (_, wish) => {
  writeFileSync(inFolder('base.raw'), Buffer.alloc(3 << 20, 77));
  writeFileSync(inFolder('data.raw'), Buffer.alloc(SIZE_BYTES));
  const path = inFolder('disk.qcow2');
  writeFileSync(path, qcow2Bytes({ sizeBytes: SIZE_BYTES, ...wish }).bytes);
  const disk = withImage(path, (image) => readAll(image));
  const opened = openImage(path, { format: 'qcow2', readOnly: false, cache: 'none' });
  const image = { ...opened, handle: withFewSlices(opened.handle, SLICES) };
  const sessions: FuzzSession[] = [];
  try {
    for (let client = 0; client < CLIENTS; client += 1)
      sessions.push(await FuzzSession.open(image, termsOfAll(), false));
    await Promise.all(
      sessions.map((session, client) => {
        const from = client * PART_BYTES;
        return work(session, 1 + client, from, disk.subarray(from, from + PART_BYTES));
      }),
    );
  } finally {
    for (const session of sessions) await session.close();
    finishWriting(path, image.handle);
    opened.close();
  }
  const watch = { onFinding: () => {}, onProgress: () => {} };
  expect(checkImage(path, { repair: undefined }, watch)).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  withImage(path, (again) => expect(readAll(again).equals(disk)).toBe(true));
});
