import type { Socket } from 'node:net';
import type { RequestedRange, ServerReply, TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import type { ClientOutcome } from '#tsnbd/protocol/client-goal.js';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { ClientTransmission } from '#tsnbd/protocol/client-transmission.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import { DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { type AskedRequest, RawClient } from './raw-client.js';
import { auditReply, must } from './reply-audit.js';

export interface Wishes {
  readonly exportName?: string;
  readonly replyStyle?: ReplyStyle;
  /** Names of metadata contexts to select. */
  readonly contexts?: readonly string[];
}

/** A reply that obeys the specification. */
export interface CheckedReply extends ServerReply {
  readonly data: Buffer;
}

interface Pending {
  readonly asked: RequestedRange;
  readonly resolve: (reply: CheckedReply) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Our client on a socket, which asks for as much at once as a test wants, and holds all that the server says against the
 * specification. At the first breach every reply that is still awaited fails with its words.
 */
export class ProtocolClient {
  /** For what a test says beside the protocol. */
  readonly raw: RawClient;
  readonly agreed: TransmissionTerms;
  /** The transmission flags that the server announced. */
  readonly flags: number;
  readonly #machine: ClientTransmission;
  readonly #pending = new Map<number, Pending>();
  readonly #over: Promise<void>;
  #broken: Error | undefined;
  /** The server ended the connection, perhaps before it answered all, but between two replies. */
  #endedBetween = false;

  /** A client on a connection whose handshake is done, or not needed. */
  constructor(raw: RawClient, agreed: TransmissionTerms, flags = NBD_FLAG_HAS_FLAGS) {
    this.raw = raw;
    this.agreed = agreed;
    this.flags = flags;
    this.#machine = new ClientTransmission(agreed);
    this.#over = this.#receive();
  }

  static onFd(fd: number, agreed: TransmissionTerms): ProtocolClient {
    return new ProtocolClient(RawClient.onFd(fd), agreed);
  }

  /** Goes through the handshake; fails where the server does not give all that is wished for. */
  static async negotiate(socket: Socket, wishes: Wishes = {}): Promise<ProtocolClient> {
    const { exportName = '', replyStyle = 'simple', contexts = [] } = wishes;
    const raw = new RawClient(socket);
    const outcome = await talk(raw, new ClientHandshake({ kind: 'go', exportName, replyStyle, contexts }));
    if (outcome.kind === 'failed') throw outcome.error;
    if (outcome.kind !== 'transmission') throw new Error(`it ended in ${outcome.kind}`);
    const { sizeBytes, flags, blockSizes = DEFAULT_BLOCK_SIZES } = outcome.export;
    if (outcome.replyStyle !== replyStyle) throw new Error(`the server grants ${outcome.replyStyle} replies only`);
    if (outcome.contexts.length < contexts.length) throw new Error('the server grants fewer contexts');
    const has = (flag: number) => (flags & flag) !== 0;
    must(has(NBD_FLAG_SEND_DF) === (replyStyle !== 'simple'), 'SEND_DF with replies in chunks, and only then');
    must(!has(NBD_FLAG_SEND_FAST_ZERO) || has(NBD_FLAG_SEND_WRITE_ZEROES), 'FAST_ZERO only with WRITE_ZEROES');
    return new ProtocolClient(raw, { replyStyle, contexts: outcome.contexts, sizeBytes, blockSizes }, flags);
  }

  /** Sends one request; the promise is for its reply, whatever else is on its way. */
  ask(request: AskedRequest): Promise<CheckedReply> {
    const [reply] = this.askTogether([request]);
    if (reply === undefined) throw new Error('one request has one reply');
    return reply;
  }

  /** Sends requests by one write, answers their replies in the same order. */
  askTogether(requests: readonly AskedRequest[]): Promise<CheckedReply>[] {
    const encoded = requests.map((request) => this.encode(request));
    this.raw.send(Buffer.concat(encoded.map(({ bytes }) => bytes)));
    return encoded.map(({ reply }) => reply);
  }

  /** The bytes of a request, for the test to send, and its reply. An extended WRITE gets its flag. */
  encode(request: AskedRequest): { readonly bytes: Buffer; readonly reply: Promise<CheckedReply> } {
    const { type, flags = 0, offsetBytes = 0, data } = request;
    const lengthBytes = request.lengthBytes ?? data?.length ?? 0;
    const { number, bytes } = this.#machine.encode(request);
    const reply = new Promise<CheckedReply>((resolve, reject) => {
      if (this.#broken !== undefined) return reject(this.#broken);
      this.#pending.set(number, { asked: { type, flags, offsetBytes, lengthBytes }, resolve, reject });
    });
    reply.catch(() => {}); // a test that awaits it hears of it all the same
    return { bytes: Buffer.from(bytes.buffer), reply };
  }

  read(offsetBytes: number, lengthBytes: number, flags = 0): Promise<CheckedReply> {
    return this.ask({ type: NBD_CMD_READ, offsetBytes, lengthBytes, flags });
  }

  write(offsetBytes: number, data: Uint8Array, flags = 0): Promise<CheckedReply> {
    return this.ask({ type: NBD_CMD_WRITE, offsetBytes, data, flags });
  }

  blockStatus(offsetBytes: number, lengthBytes: number, flags = 0): Promise<CheckedReply> {
    return this.ask({ type: NBD_CMD_BLOCK_STATUS, offsetBytes, lengthBytes, flags });
  }

  /** Says that no request follows; resolves with the words of a breach, or nothing, when the server has closed. */
  async disconnect(): Promise<string | undefined> {
    this.raw.send(this.#machine.encode({ type: NBD_CMD_DISC }).bytes);
    await this.#over;
    return this.#endedBetween ? undefined : this.#broken?.message;
  }

  close(): void {
    this.raw.close();
  }

  async #receive(): Promise<void> {
    try {
      for (let piece = await this.raw.piece(); piece !== undefined; piece = await this.raw.piece()) this.#take(piece);
      const { awaitedReplies } = this.#machine;
      const failure = this.#machine.end();
      this.#endedBetween = failure === undefined || (awaitedReplies > 0 && /without an answer$/.test(failure.message));
      throw failure ?? new Error('the server closed the connection');
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      for (const { reject } of this.#pending.values()) reject(this.#broken);
      this.#pending.clear();
    }
  }

  #take(piece: Buffer): void {
    const { replies, failure } = this.#machine.receive(piece);
    for (const { number, reply } of replies) {
      const pending = this.#pending.get(number);
      if (pending === undefined) throw new Error('a reply to nobody');
      auditReply(pending.asked, this.agreed, reply);
      this.#pending.delete(number);
      const { buffer, byteOffset, length } = reply.data;
      pending.resolve({ ...reply, data: Buffer.from(buffer, byteOffset, length) });
    }
    if (failure !== undefined) throw failure;
  }
}

async function talk(raw: RawClient, handshake: ClientHandshake): Promise<ClientOutcome> {
  for (let piece = await raw.piece(); piece !== undefined; piece = await raw.piece()) {
    const { send, outcome } = handshake.receive(piece);
    raw.send(send);
    if (outcome !== undefined) return outcome;
  }
  return handshake.end();
}
