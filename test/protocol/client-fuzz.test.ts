import { describe, expect, it } from 'vitest';
import { ClientTransmission, type TransmissionStep } from '#tsnbd/protocol/client-transmission.js';
import { NBD_STATUS_DESCRIPTORS_MAX } from '#tsnbd/protocol/constants.js';
import { ProtocolError } from '#tsnbd/protocol/errors.js';
import { long } from '../long.js';
import { mutate } from './mutate.js';
import { type Transmission, transmissions } from './transmissions.js';
import { hex, pieces, seededRandom } from './wire.js';

const SEED = 11;
const STREAMS = 60_000 * (long ? 20 : 1);
/** Each kind of end is to come at least so often. */
const ENDS_MIN = 300;
const BUFFERED_BYTES_MAX = 8 + 16 * NBD_STATUS_DESCRIPTORS_MAX;

interface Fate {
  readonly failure: ProtocolError | undefined;
  readonly replies: TransmissionStep['replies'];
}

function fateOf({ terms, requests }: Transmission, said: readonly Uint8Array[]): Fate {
  const client = new ClientTransmission(terms);
  for (const request of requests) client.encode(request);
  const replies: TransmissionStep['replies'][number][] = [];
  for (const piece of said) {
    replies.push(...client.receive(piece).replies);
    if (client.bufferedBytes > BUFFERED_BYTES_MAX) throw new Error(`${client.bufferedBytes} bytes are held`);
  }
  return { failure: client.end(), replies };
}

/** A reply belongs to a request, comes once, and has neither more nor less than was asked for. */
function checkReplies({ terms, requests }: Transmission, { replies, failure }: Fate): void {
  const numbers = replies.map(({ number }) => number);
  expect(new Set(numbers).size).toBe(numbers.length);
  for (const { number, reply } of replies) {
    const request = requests[number - 1];
    if (request === undefined) throw new Error(`a reply to request ${number}`);
    const { type, lengthBytes = 0 } = request;
    expect(reply.data.length).toBe(type === 0 ? lengthBytes : 0);
    if (type === 7 && reply.error === 0) {
      expect([...reply.extents.keys()].sort()).toEqual(terms.contexts.map(({ id }) => id).sort());
      for (const extents of reply.extents.values()) expect(extents.length).toBeGreaterThan(0);
    }
  }
  if (failure === undefined) expect(numbers.length).toBe(requests.length);
  else if (!(failure instanceof ProtocolError) || !/^[^\p{Cc}]{10,1000}$/u.test(failure.message)) {
    throw new Error(`not a clear error: ${String(failure)}`);
  }
}

describe('a damaged stream of a server', () => {
  const all = Object.values(transmissions);
  const corpus = all.map(({ answer }) => answer);

  it('ends in replies that fit the requests, or in a clear error', () => {
    const random = seededRandom(SEED);
    const ends = new Map<string, number>();
    for (let stream = 0; stream < STREAMS; stream += 1) {
      const transmission = all[random(all.length)] as Transmission;
      const said = mutate(transmission.answer, corpus, random);
      try {
        const fate = fateOf(transmission, pieces(said, random, 64));
        checkReplies(transmission, fate);
        if (stream % 16 === 0) expect(fateOf(transmission, [said])).toEqual(fate);
        const end = fate.failure?.code ?? 'answered';
        ends.set(end, (ends.get(end) ?? 0) + 1);
      } catch (cause) {
        throw new Error(`stream ${stream} of seed ${SEED}: ${hex(said)}`, { cause });
      }
    }
    console.log(`client, ${STREAMS} streams, seed ${SEED}: ${Array.from(ends, (end) => end.join(' ')).join(', ')}`);
    for (const end of ['answered', 'violation', 'closed']) expect(ends.get(end), end).toBeGreaterThan(ENDS_MIN);
  });
});
