import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { BATCH_BYTES } from '#tsnbd/server/replies.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import type { Terms } from './disk-model.js';
import type { AskedRequest } from './raw-client.js';
import { seeded } from './seeded.js';

export type Random = (below: number) => number;

/** Where something changes: holes are looked for, replies go by reference, buffers are full. */
const TURNING_POINTS = [65_536, 131_072, BATCH_BYTES, INPUT_BYTES, 2 * INPUT_BYTES];
/** The data of writes are cut out of this: no two places are alike. */
const NOISE = noiseOf(4_194_304);

/** A request that may be in order, and one time in eight is not, as far as the terms go. */
export function anyRequest(random: Random, terms: Terms): AskedRequest {
  const request = goodRequest(random, terms);
  return random(8) === 0 ? spoilt(random, request, terms) : request;
}

/** With the data that the header makes the server expect. */
export function withData(request: AskedRequest, replyStyle: ReplyStyle): AskedRequest {
  const { type, flags = 0, lengthBytes = 0 } = request;
  const carries = type === NBD_CMD_WRITE || (replyStyle === 'extended' && (flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0);
  const { data, ...bare } = request;
  if (!carries) return bare;
  return { ...bare, data: data?.length === lengthBytes ? data : NOISE.subarray(0, lengthBytes) };
}

function goodRequest(random: Random, terms: Terms): AskedRequest {
  const range = anyRange(random, terms);
  const flags = random(300) === 0 ? NBD_CMD_FLAG_FUA : 0;
  switch (random(20)) {
    case 0:
    case 1: {
      const ways = pick(random, [0, 0, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_FAST_ZERO, 18]);
      return { type: NBD_CMD_WRITE_ZEROES, ...range, flags: flags | ways };
    }
    case 2:
    case 3:
      return { type: NBD_CMD_TRIM, ...range, flags };
    case 4:
      return random(20) === 0 ? { type: NBD_CMD_FLUSH, flags } : { type: NBD_CMD_CACHE, ...range, flags };
    case 5:
    case 6: {
      const one = random(3) === 0 ? NBD_CMD_FLAG_REQ_ONE : 0;
      return { type: NBD_CMD_BLOCK_STATUS, ...range, flags: flags | one };
    }
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
    case 12: {
      const whole = terms.replyStyle !== 'simple' && random(8) === 0 ? NBD_CMD_FLAG_DF : 0;
      return { type: NBD_CMD_READ, ...range, flags: flags | whole };
    }
    default: {
      const data = random(10) === 0 ? Buffer.alloc(range.lengthBytes) : noise(random, range.lengthBytes);
      const own = terms.replyStyle === 'extended' && random(4) !== 0 ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
      return { type: NBD_CMD_WRITE, ...range, data, flags: flags | own };
    }
  }
}

/** Something of the request becomes something else, mostly what is not in order. */
function spoilt(random: Random, request: AskedRequest, { sizeBytes, replyStyle }: Terms): AskedRequest {
  const { type, flags = 0, offsetBytes = 0, lengthBytes = 0 } = request;
  switch (random(8)) {
    case 0: // behind the end, by a byte or by all there is
      return {
        ...request,
        offsetBytes: sizeBytes - lengthBytes + pick(random, [1, 512, lengthBytes, 1 + random(sizeBytes)]),
      };
    case 1: // where no export reaches
      return { ...request, offsetBytes: pick(random, [2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 2048]) };
    case 2: {
      // longer than the export, but no WRITE: its data would have to follow
      const lengths = replyStyle === 'extended' ? [2 ** 32, 2 ** 40, 2 ** 53, 2 ** 64 - 2048] : [2 ** 31, 2 ** 32 - 1];
      const length = pick(random, [33_554_433, ...lengths]);
      return type === NBD_CMD_WRITE
        ? request
        : { ...request, flags: flags & ~NBD_CMD_FLAG_PAYLOAD_LEN, lengthBytes: length };
    }
    case 3: // a flag that belongs to others, or to nobody
      return { ...request, flags: flags ^ (1 << random(16)) };
    case 4: // another command, known or not
      return {
        ...request,
        type: pick(
          random,
          [8, 9, 255, 65_535, random(8)].filter((one) => one !== NBD_CMD_DISC),
        ),
      };
    case 5:
      return { ...request, lengthBytes: 0 };
    case 6: // no multiple of any block
      return { ...request, offsetBytes: offsetBytes + 1 };
    default:
      return { type: NBD_CMD_FLUSH, offsetBytes: random(2) * 512, lengthBytes: random(2) * 512 };
  }
}

/** Mostly a few sectors, as a file system asks for; at times any bytes; seldom what no longer is small. */
function anyRange(random: Random, terms: Terms): { readonly offsetBytes: number; readonly lengthBytes: number } {
  const { sizeBytes } = terms;
  const { minimum } = terms.blockSizes;
  const shape = random(200);
  if (shape === 0) {
    const lengthBytes = roundDown(pick(random, TURNING_POINTS) + random(3) - 1, minimum);
    return { offsetBytes: roundDown(random(sizeBytes - lengthBytes + 1), minimum), lengthBytes };
  }
  const unit = shape < 120 ? Math.max(512, minimum) : minimum;
  const lengthBytes = roundDown(1 + random(shape < 4 ? 400_000 : 8_192), unit) || unit;
  return { offsetBytes: roundDown(random(sizeBytes - lengthBytes + 1), unit), lengthBytes };
}

function noise(random: Random, lengthBytes: number): Buffer {
  const from = random(NOISE.length - lengthBytes + 1);
  return NOISE.subarray(from, from + lengthBytes);
}

function noiseOf(lengthBytes: number): Buffer {
  const words = new Uint32Array(lengthBytes / 4);
  const random = seeded(0);
  for (let index = 0; index < words.length; index += 1) words[index] = random(2 ** 32);
  return Buffer.from(words.buffer);
}

function pick<T>(random: Random, choices: readonly T[]): T {
  const choice = choices[random(choices.length)];
  if (choice === undefined) throw new Error('a choice among none');
  return choice;
}

function roundDown(value: number, unit: number): number {
  return value - (value % unit);
}
