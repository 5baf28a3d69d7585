import { expect, test } from 'vitest';
import type { Image } from '#tsnbd/image/image.js';
import { NBD_CMD_READ, NBD_CMD_WRITE } from '#tsnbd/protocol/constants.js';
import { emptyRequest } from '#tsnbd/protocol/request.js';
import { ColdReads } from '#tsnbd/server/cold-reads.js';
import type { Reads } from '#tsnbd/server/reads.js';
import type { Replies } from '#tsnbd/server/replies.js';
import { RequestInput } from '#tsnbd/server/request-input.js';
import { TimedReads } from '#tsnbd/server/timed-reads.js';

const read = { ...emptyRequest(), type: NBD_CMD_READ, lengthBytes: 512 };
const write = { ...emptyRequest(), type: NBD_CMD_WRITE, lengthBytes: 512 };
const rules = {
  sizeBytes: 1_048_576,
  readOnly: false,
  minimumBlockBytes: 1,
  replyStyle: 'simple',
  statusContexts: 0,
  flags: 0,
} as const;

/** A read that takes long, and no sleep: another thread has its processor. */
const slowReads = {
  answerTogether() {
    for (const begin = performance.now(); performance.now() - begin < 1; );
  },
  sendTogether() {},
  isBeginnable: () => false,
} as unknown as Reads;

let sleeps: number;

/** Reads that are taken for cold or not; `sendUnlessFits` is what happens before one that is timed. */
function timedReads(sendUnlessFits: () => boolean): { readonly reads: TimedReads; readonly cold: ColdReads } {
  sleeps = 7;
  const image = {} as Image;
  const input = new RequestInput('simple', new Uint8Array(0));
  const cold = new ColdReads(image, rules, input, slowReads, () => sleeps);
  const replies = { sendUnlessFits } as unknown as Replies;
  return { cold, reads: new TimedReads(image, replies, slowReads, cold, input, undefined, () => {}) };
}

test('a sleep for the client, while replies are sent to make room for a read, is no sign of a disk', () => {
  const { reads, cold } = timedReads(() => {
    sleeps += 1;
    return true;
  });
  for (let count = 0; count < 64; count += 1) reads.answer(read);
  expect(cold.isCold).toBe(false);
});

test('a sleep for what came between two reads is no sign of a disk', () => {
  const { reads, cold } = timedReads(() => false);
  for (let count = 0; count < 16; count += 1) reads.answer(read); // one of them is timed
  reads.before(write);
  sleeps += 1; // for the rest of its data
  reads.answer(read);
  expect(cold.isCold).toBe(false);
});
