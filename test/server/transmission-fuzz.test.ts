import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import { NBD_CMD_READ, NBD_FLAG_SEND_FAST_ZERO, NBD_FLAG_SEND_TRIM } from '#tsnbd/protocol/constants.js';
import { BASE_ALLOCATION } from '#tsnbd/protocol/meta-context.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { imageFlags } from '#tsnbd/server/exports.js';
import { PIPED_BYTES_MIN } from '#tsnbd/server/piped-reads.js';
import { long } from '../long.js';
import { anyRequest, withData } from './any-request.js';
import { DiskModel, errorsOf, type Terms } from './disk-model.js';
import { FuzzSession } from './fuzz-session.js';
import type { AskedRequest } from './raw-client.js';
import { agreement } from './reply-audit.js';
import { seeded } from './seeded.js';

const SIZE_BYTES = 4_194_304;
const ROUNDS = long ? 10 : 1;
const CLIENTS = 2;
/** A client leaves after so many batches, on average: its successor gets a thread of its own, whose start takes as long as thousands of requests. */
const SESSION_BATCHES = 32;
/** So many requests are sent before the first is answered. */
const BATCH_MAX = 64;
const LIMIT_MS = 600_000 * ROUNDS;

interface Setting {
  readonly requests: number;
  readonly replyStyle: ReplyStyle;
  readonly withContexts?: boolean;
  readonly overTcp?: boolean;
  readonly minimumBlockBytes?: number;
  readonly image?: Partial<OpenOptions>;
}

const SETTINGS: Readonly<Record<string, Setting>> = {
  'simple replies': { requests: 16_000, replyStyle: 'simple' },
  'structured replies': { requests: 16_000, replyStyle: 'structured' },
  'structured replies and base:allocation': { requests: 16_000, replyStyle: 'structured', withContexts: true },
  'extended headers': { requests: 16_000, replyStyle: 'extended' },
  'extended headers and base:allocation': { requests: 16_000, replyStyle: 'extended', withContexts: true },
  'simple replies over TCP': { requests: 4_000, replyStyle: 'simple', overTcp: true },
  'extended headers over TCP': { requests: 4_000, replyStyle: 'extended', withContexts: true, overTcp: true },
  'a read-only image': {
    requests: 4_000,
    replyStyle: 'structured',
    withContexts: true,
    image: { readOnly: true },
  },
  'blocks of 4096 bytes': { requests: 4_000, replyStyle: 'extended', withContexts: true, minimumBlockBytes: 4_096 },
  'direct I/O': { requests: 4_000, replyStyle: 'structured', withContexts: true, image: { cache: 'none' } },
  'writes of zeroes that give storage back': {
    requests: 4_000,
    replyStyle: 'structured',
    withContexts: true,
    image: { detectZeroes: 'unmap' },
  },
  'discards that are ignored': {
    requests: 4_000,
    replyStyle: 'extended',
    withContexts: true,
    image: { discard: 'ignore' },
  },
};

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-fuzz-'));
  path = join(folder, 'disk.raw');
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('whatever clients ask for, each reply is right', () => {
  test('to 100,000 requests at least', () => {
    const requests = Object.values(SETTINGS).reduce((sum, setting) => sum + setting.requests, 0);
    expect(requests).toBeGreaterThanOrEqual(100_000);
  });

  test.each(Object.entries(SETTINGS))(
    '%s',
    async (_name, setting) => {
      let ended = 0;
      for (let seed = 1; seed <= ROUNDS; seed += 1) ended += await fuzz(setting, seed);
      // Within one of the shorter rounds nobody may leave.
      expect(ended).toBeGreaterThan(0);
    },
    LIMIT_MS,
  );
});

/** Answers how many clients have left meanwhile. */
async function fuzz(setting: Setting, seed: number): Promise<number> {
  const content = makeDisk();
  const image = openImage(path, { format: 'raw', readOnly: false, ...setting.image });
  const sessions: (FuzzSession | undefined)[] = Array.from({ length: CLIENTS });
  try {
    const model = new DiskModel(content);
    return await exchangeAll(setting, seed, { image, model, sessions });
  } finally {
    for (const session of sessions) await session?.close();
    image.close();
  }
}

interface Place {
  readonly image: OpenedImage;
  readonly model: DiskModel;
  readonly sessions: (FuzzSession | undefined)[];
}

/** One client after the other asks for a batch, and sees what the others did before. */
async function exchangeAll(setting: Setting, seed: number, { image, model, sessions }: Place): Promise<number> {
  const random = seeded(seed);
  const terms = termsOf(setting, image);
  const outcomes = { done: 0, refused: 0, ended: 0 };
  while (outcomes.done + outcomes.refused < setting.requests) {
    const at = `seed ${seed}, request ${outcomes.done + outcomes.refused}`;
    const client = random(CLIENTS);
    const session = sessions[client] ?? (await FuzzSession.open(image, terms, setting.overTcp ?? false));
    sessions[client] = session;
    const batch = Array.from({ length: 1 + random(BATCH_MAX) }, () =>
      withData(anyRequest(random, terms), terms.replyStyle),
    );
    for (const [index, reply] of (await session.exchange(batch, random)).entries()) {
      const request = batch[index] as AskedRequest;
      const later = mayGoByReference(request, setting) ? batch.slice(index + 1) : [];
      const complaint = model.complaint(request, reply, terms, later);
      if (complaint !== undefined) expect.fail(`${at} + ${index}, ${inWords(request)}: ${complaint}`);
      outcomes[errorsOf(request, terms).length > 0 ? 'refused' : 'done'] += 1;
    }
    if (random(SESSION_BATCHES) > 0) continue;
    await session.end(random);
    sessions[client] = undefined;
    outcomes.ended += 1;
  }
  expect(model.wrongContent(readFileSync(path))).toBeUndefined();
  expect(outcomes.refused).toBeGreaterThan(setting.requests / 20);
  expect(outcomes.done).toBeGreaterThan(setting.requests / 4);
  return outcomes.ended;
}

/**
 * What is read may be changed before the client has it by requests that it sent before that, which are done at the same time
 * (proto.md, 'Ordering of messages'); all else is read as if each request waited for those before it, which is more than clients may ask for.
 */
function mayGoByReference({ type, lengthBytes = 0 }: AskedRequest, { overTcp, image }: Setting): boolean {
  return type === NBD_CMD_READ && lengthBytes >= PIPED_BYTES_MIN && overTcp !== true && image?.cache !== 'none';
}

function termsOf({ replyStyle, withContexts, minimumBlockBytes }: Setting, image: OpenedImage): Terms {
  const agreed = agreement(replyStyle, SIZE_BYTES, withContexts === true ? [BASE_ALLOCATION] : []);
  const flags = imageFlags(image, true);
  return {
    ...agreed,
    blockSizes: { ...agreed.blockSizes, minimum: minimumBlockBytes ?? 1 },
    readOnly: image.readOnly,
    unannounced: {
      trim: (flags & NBD_FLAG_SEND_TRIM) === 0,
      fastZero: (flags & NBD_FLAG_SEND_FAST_ZERO) === 0,
    },
  };
}

/** Data and holes, 64 KiB of each in turn; answers what it reads as. */
function makeDisk(): Buffer {
  const content = Buffer.alloc(SIZE_BYTES);
  const random = seeded(4711);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, SIZE_BYTES);
  for (let begin = 0; begin < SIZE_BYTES; begin += 131_072) {
    for (let at = begin; at < begin + 65_536; at += 4) content.writeUInt32LE(random(2 ** 32), at);
    writeSync(fd, content, begin, 65_536, begin);
  }
  closeSync(fd);
  return content;
}

function inWords(request: AskedRequest): string {
  return JSON.stringify({ ...request, data: request.data?.length });
}
