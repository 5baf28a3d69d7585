import type { Socket } from 'node:net';
import { ReadCursor } from '#tsnbd/base/cursor.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_GREETING_BYTES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INIT_MAGIC,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP_ACK,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STATUS_DESCRIPTORS_MAX,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
} from '#tsnbd/protocol/constants.js';
import { type BlockSizes, checkBlockSizes, DEFAULT_BLOCK_SIZES } from '#tsnbd/protocol/export-info.js';
import { decodeMetaContext, encodeContextQuestion, type MetaContext } from '#tsnbd/protocol/meta-context.js';
import { encodeExportQuestion, encodeOption } from '#tsnbd/protocol/option.js';
import { decodeInformation, decodeOptionReplyHeader } from '#tsnbd/protocol/option-reply.js';
import type { ReplyStyle } from '#tsnbd/protocol/reply.js';
import { encodeExtendedRequest, encodeRequest } from '#tsnbd/protocol/request.js';
import { type AskedRequest, RawClient } from './raw-client.js';
import { type Agreement, type CheckedReply, ReplyCheck } from './reply-check.js';

export interface Wishes {
  readonly exportName?: string;
  readonly replyStyle?: ReplyStyle;
  /** Names of metadata contexts to select. */
  readonly contexts?: readonly string[];
}

interface Pending {
  readonly check: ReplyCheck;
  /** Data behind a simple reply without an error. */
  readonly readBytes: number;
  /** As it was sent: an extended reply must bring it back. */
  readonly offset: Buffer;
  readonly resolve: (reply: CheckedReply) => void;
  readonly reject: (error: Error) => void;
}

const COOKIE_HIGH = 0xc0ffee00;
/** No chunk has reason to be longer. */
const CHUNK_BYTES_MAX = 8 + Math.max(33_554_432, 16 * NBD_STATUS_DESCRIPTORS_MAX);

/**
 * A client that speaks every reply style, asks for as much at once as a test wants, and holds all that the server says
 * against the specification. At the first breach every reply that is still awaited fails with its words.
 */
export class ProtocolClient {
  /** For what a test says beside the protocol. */
  readonly raw: RawClient;
  readonly agreed: Agreement;
  /** The transmission flags that the server announced. */
  readonly flags: number;
  readonly #pending = new Map<number, Pending>();
  readonly #over: Promise<void>;
  #lastCookie = 0;
  #broken: Error | undefined;

  /** A client on a connection whose handshake is done, or not needed. */
  constructor(raw: RawClient, agreed: Agreement, flags = NBD_FLAG_HAS_FLAGS) {
    this.raw = raw;
    this.agreed = agreed;
    this.flags = flags;
    this.#over = this.#receive();
  }

  static onFd(fd: number, agreed: Agreement): ProtocolClient {
    return new ProtocolClient(RawClient.onFd(fd), agreed);
  }

  /** Goes through the handshake; fails where the server does not give all that is wished for. */
  static async negotiate(socket: Socket, wishes: Wishes = {}): Promise<ProtocolClient> {
    const { exportName = '', replyStyle = 'simple', contexts: names = [] } = wishes;
    const raw = new RawClient(socket);
    await greet(raw);
    if (replyStyle === 'structured') await option(raw, NBD_OPT_STRUCTURED_REPLY, new Uint8Array(0));
    if (replyStyle === 'extended') await option(raw, NBD_OPT_EXTENDED_HEADERS, new Uint8Array(0));
    const contexts = names.length > 0 ? await selectContexts(raw, exportName, names) : [];
    const { flags, ...facts } = await go(raw, exportName, replyStyle);
    return new ProtocolClient(raw, { replyStyle, contexts, ...facts }, flags);
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
    const { type, offsetBytes = 0, data = new Uint8Array(0) } = request;
    const lengthBytes = request.lengthBytes ?? data.length;
    const extended = this.agreed.replyStyle === 'extended';
    const flags = (request.flags ?? 0) | (extended && type === NBD_CMD_WRITE ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    this.#lastCookie += 1;
    const cookieLow = this.#lastCookie;
    const headerBytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    const bytes = Buffer.alloc(headerBytes + data.length);
    const fields = { flags, type, cookieHigh: COOKIE_HIGH, cookieLow, offsetBytes, lengthBytes };
    (extended ? encodeExtendedRequest : encodeRequest)(new DataView(bytes.buffer, bytes.byteOffset), 0, fields);
    bytes.set(data, headerBytes);

    const reply = new Promise<CheckedReply>((resolve, reject) => {
      if (this.#broken !== undefined) return reject(this.#broken);
      const check = new ReplyCheck({ type, flags, offsetBytes, lengthBytes }, this.agreed);
      const readBytes = type === NBD_CMD_READ ? lengthBytes : 0;
      this.#pending.set(cookieLow, { check, readBytes, offset: bytes.subarray(16, 24), resolve, reject });
    });
    reply.catch(() => {}); // a test that awaits it hears of it all the same
    return { bytes, reply };
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
    const { bytes } = this.encode({ type: NBD_CMD_DISC });
    this.#pending.delete(this.#lastCookie);
    this.raw.send(bytes);
    await this.#over;
    const rest = await this.raw.end();
    if (this.#broken !== undefined && this.#broken.message !== ENDED) return this.#broken.message;
    return rest.length === 0 ? undefined : `the server sends ${rest.length} bytes behind its last reply`;
  }

  close(): void {
    this.raw.close();
  }

  async #receive(): Promise<void> {
    try {
      for (;;) await this.#receiveOne();
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      for (const { reject } of this.#pending.values()) reject(this.#broken);
      this.#pending.clear();
    }
  }

  async #receiveOne(): Promise<void> {
    const magic = await this.raw.read(4);
    switch (magic.readUInt32BE(0)) {
      case NBD_SIMPLE_REPLY_MAGIC:
        return this.#receiveSimple(await this.raw.read(NBD_SIMPLE_REPLY_BYTES - 4));
      case NBD_STRUCTURED_REPLY_MAGIC:
        must(this.agreed.replyStyle === 'structured', 'a structured reply only where it was negotiated');
        return this.#receiveChunk(await this.raw.read(NBD_STRUCTURED_REPLY_BYTES - 4));
      case NBD_EXTENDED_REPLY_MAGIC:
        must(this.agreed.replyStyle === 'extended', 'an extended reply only where it was negotiated');
        return this.#receiveChunk(await this.raw.read(NBD_EXTENDED_REPLY_BYTES - 4));
      default:
        throw new Error(`the server sends ${magic.toString('hex')} where a reply should begin`);
    }
  }

  async #receiveSimple(header: Buffer): Promise<void> {
    const cookie = cookieOf(header);
    const pending = this.#pendingOf(cookie);
    const error = header.readUInt32BE(0);
    pending.check.simple(error);
    if (error === 0 && pending.readBytes > 0) pending.check.simpleData(await this.raw.read(pending.readBytes));
    this.#settle(cookie, pending);
  }

  async #receiveChunk(header: Buffer): Promise<void> {
    const cookie = cookieOf(header);
    const pending = this.#pendingOf(cookie);
    const extended = this.agreed.replyStyle === 'extended';
    if (extended) must(header.subarray(12, 20).equals(pending.offset), 'the offset of the request in its reply');
    const lengthBytes = extended ? Number(header.readBigUInt64BE(20)) : header.readUInt32BE(12);
    must(lengthBytes <= CHUNK_BYTES_MAX, 'no chunk longer than any has reason to be');
    const payload = await this.raw.read(lengthBytes);
    if (pending.check.chunk(header.readUInt16BE(0), header.readUInt16BE(2), payload)) this.#settle(cookie, pending);
  }

  #pendingOf(cookie: number): Pending {
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw new Error('the server breaks a rule: no reply to a request that awaits none');
    return pending;
  }

  #settle(cookie: number, { check, resolve }: Pending): void {
    this.#pending.delete(cookie);
    resolve(check.finish());
  }
}

/** What RawClient says when the connection is over. */
const ENDED = 'the server has ended the connection';

/** The lower half; both headers have the cookie behind four bytes of their own. */
function cookieOf(header: Buffer): number {
  must(header.readUInt32BE(4) === COOKIE_HIGH, 'the cookie of a request in its reply');
  return header.readUInt32BE(8);
}

async function greet(raw: RawClient): Promise<void> {
  const cursor = new ReadCursor(await raw.read(NBD_GREETING_BYTES));
  must(cursor.u64be() === NBD_INIT_MAGIC && cursor.u64be() === NBD_OPTION_MAGIC, 'the magics of a newstyle server');
  must((cursor.u16be() & NBD_FLAG_FIXED_NEWSTYLE) !== 0, 'fixed newstyle');
  raw.send(new Uint8Array([0, 0, 0, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES]));
}

/** The data of the replies before NBD_REP_ACK, which must be of `replyType`. */
async function option(raw: RawClient, number: number, data: Uint8Array, replyType?: number): Promise<Buffer[]> {
  raw.send(encodeOption(number, data));
  const replies: Buffer[] = [];
  for (;;) {
    const header = decodeOptionReplyHeader(await raw.read(NBD_OPTION_REPLY_HEADER_BYTES));
    must(header.option === number, 'a reply names its option');
    const reply = await raw.read(header.dataBytes);
    if (header.type === NBD_REP_ACK) {
      must(reply.length === 0, 'NBD_REP_ACK has no data');
      return replies;
    }
    if (header.type !== replyType) {
      throw new Error(`the server answers option ${number} by 0x${header.type.toString(16)}: ${reply}`);
    }
    replies.push(reply);
  }
}

async function selectContexts(
  raw: RawClient,
  exportName: string,
  queries: readonly string[],
): Promise<readonly MetaContext[]> {
  const data = encodeContextQuestion({ exportName, queries });
  const replies = await option(raw, NBD_OPT_SET_META_CONTEXT, data, NBD_REP_META_CONTEXT);
  const contexts = replies.map(decodeMetaContext);
  must(new Set(contexts.map(({ id }) => id)).size === contexts.length, 'an id of its own for each context');
  return contexts;
}

async function go(
  raw: RawClient,
  exportName: string,
  replyStyle: ReplyStyle,
): Promise<{ readonly sizeBytes: number; readonly flags: number; readonly blockSizes: BlockSizes }> {
  const data = encodeExportQuestion({ exportName, infoTypes: [NBD_INFO_BLOCK_SIZE] });
  const information = (await option(raw, NBD_OPT_GO, data, NBD_REP_INFO)).map(decodeInformation);
  let facts: { readonly sizeBytes: number; readonly flags: number } | undefined;
  let blockSizes = DEFAULT_BLOCK_SIZES;
  for (const one of information) {
    if (one.kind === 'block-size') blockSizes = checkBlockSizes(one.blockSizes);
    if (one.kind !== 'export') continue;
    must(facts === undefined, 'an export is described once');
    facts = { sizeBytes: Number(one.sizeBytes), flags: one.flags };
  }
  if (facts === undefined) throw new Error('the server breaks a rule: an export has a size');
  const has = (flag: number) => ((facts?.flags ?? 0) & flag) !== 0;
  must(has(NBD_FLAG_HAS_FLAGS), 'HAS_FLAGS');
  must(has(NBD_FLAG_SEND_DF) === (replyStyle !== 'simple'), 'SEND_DF with replies in chunks, and only then');
  must(!has(NBD_FLAG_SEND_FAST_ZERO) || has(NBD_FLAG_SEND_WRITE_ZEROES), 'FAST_ZERO only with WRITE_ZEROES');
  return { ...facts, blockSizes };
}

function must(kept: boolean, rule: string): void {
  if (!kept) throw new Error(`the server breaks a rule: ${rule}`);
}
