import type { TransmissionTerms } from '#tsnbd/protocol/awaited-reply.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
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
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_STATE_ZERO,
} from '#tsnbd/protocol/constants.js';
import type { StatusExtent } from '#tsnbd/protocol/reply-chunk.js';
import type { CheckedReply } from './protocol-client.js';
import type { AskedRequest } from './raw-client.js';

/** What an export is, and what was agreed on for it. */
export interface Terms extends TransmissionTerms {
  readonly readOnly: boolean;
  /** Commands and flags that the server did not announce. */
  readonly unannounced?: { readonly trim?: boolean; readonly fastZero?: boolean };
}

interface Rule {
  readonly error: number;
  readonly broken: (request: Required<Omit<AskedRequest, 'data'>>, terms: Terms) => boolean;
}

const MUCH_DATA_BYTES = 33_554_432;
const CHANGES: readonly number[] = [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES];
const RANGED: readonly number[] = [...CHANGES, NBD_CMD_READ, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS];
const FULL_WHEN_BEYOND: readonly number[] = [NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES];
const isMuchData = ({ type, lengthBytes }: { readonly type: number; readonly lengthBytes: number }) =>
  (type === NBD_CMD_READ || type === NBD_CMD_WRITE) && lengthBytes > MUCH_DATA_BYTES;
const isBeyond = ({ type, offsetBytes, lengthBytes }: Required<Omit<AskedRequest, 'data'>>, sizeBytes: number) =>
  RANGED.includes(type) && offsetBytes + lengthBytes > sizeBytes;

/** The rules of a request (proto.md, 'Error values', 'Request types'), each with the error that answers its breach. */
const RULES: readonly Rule[] = [
  { error: NBD_EINVAL, broken: ({ type }) => !RANGED.includes(type) && type !== NBD_CMD_FLUSH },
  { error: NBD_EINVAL, broken: ({ type }, { unannounced }) => type === NBD_CMD_TRIM && unannounced?.trim === true },
  { error: NBD_EINVAL, broken: ({ type, flags }, terms) => (flags & ~allowedFlags(type, terms)) !== 0 },
  { error: NBD_EPERM, broken: ({ type }, { readOnly }) => readOnly && CHANGES.includes(type) },
  {
    error: NBD_EINVAL,
    broken: (request, { sizeBytes }) => isBeyond(request, sizeBytes) && !FULL_WHEN_BEYOND.includes(request.type),
  },
  {
    error: NBD_ENOSPC,
    broken: (request, { sizeBytes }) => isBeyond(request, sizeBytes) && FULL_WHEN_BEYOND.includes(request.type),
  },
  { error: NBD_EINVAL, broken: (request) => isMuchData(request) && (request.flags & NBD_CMD_FLAG_DF) === 0 },
  { error: NBD_EOVERFLOW, broken: (request) => isMuchData(request) && (request.flags & NBD_CMD_FLAG_DF) !== 0 },
  {
    error: NBD_EINVAL,
    broken: ({ type, offsetBytes, lengthBytes }, { blockSizes: { minimum } }) =>
      RANGED.includes(type) && (offsetBytes % minimum !== 0 || lengthBytes % minimum !== 0),
  },
  {
    error: NBD_EINVAL,
    broken: ({ type, offsetBytes, lengthBytes }) => type === NBD_CMD_FLUSH && (offsetBytes !== 0 || lengthBytes !== 0),
  },
  {
    error: NBD_EINVAL,
    broken: ({ type, lengthBytes }, { contexts }) =>
      type === NBD_CMD_BLOCK_STATUS && (contexts.length === 0 || lengthBytes === 0),
  },
];

function allowedFlags(type: number, { replyStyle, unannounced }: Terms): number {
  const fastZero = unannounced?.fastZero === true ? 0 : NBD_CMD_FLAG_FAST_ZERO;
  const own: Readonly<Record<number, number>> = {
    [NBD_CMD_READ]: replyStyle === 'simple' ? 0 : NBD_CMD_FLAG_DF,
    [NBD_CMD_WRITE]: replyStyle === 'extended' ? NBD_CMD_FLAG_PAYLOAD_LEN : 0,
    [NBD_CMD_WRITE_ZEROES]: NBD_CMD_FLAG_NO_HOLE | fastZero,
    [NBD_CMD_BLOCK_STATUS]: NBD_CMD_FLAG_REQ_ONE,
  };
  return NBD_CMD_FLAG_FUA | (own[type] ?? 0);
}

/** The errors that may answer a request: one for each rule that it breaks. None: it must be done. */
export function errorsOf(request: AskedRequest, terms: Terms): readonly number[] {
  const { type, flags = 0, offsetBytes = 0, data } = request;
  const asked = { type, flags, offsetBytes, lengthBytes: request.lengthBytes ?? data?.length ?? 0 };
  return RULES.filter(({ broken }) => broken(asked, terms)).map(({ error }) => error);
}

/** The disk in memory, slow and simple. It is given each request with its reply, and says what is wrong with that. */
export class DiskModel {
  readonly bytes: Buffer;
  /** Where a TRIM was, a byte may be zero or what it was before. */
  readonly #isTrimmed: Uint8Array;
  readonly #beforeTrim: Buffer;

  constructor(content: Buffer) {
    this.bytes = content;
    this.#isTrimmed = new Uint8Array(content.length);
    this.#beforeTrim = Buffer.alloc(content.length);
  }

  /**
   * `later` are requests that are done at the same time as this one: what is read may show what they did.
   */
  complaint(
    request: AskedRequest,
    reply: CheckedReply,
    terms: Terms,
    later: readonly AskedRequest[],
  ): string | undefined {
    const errors = errorsOf(request, terms);
    if (errors.length > 0) {
      return errors.includes(reply.error) ? undefined : `error ${reply.error} instead of one of ${errors}`;
    }
    const { type, flags = 0 } = request;
    const isFast = type === NBD_CMD_WRITE_ZEROES && (flags & NBD_CMD_FLAG_FAST_ZERO) !== 0;
    if (isFast && reply.error === NBD_ENOTSUP) return undefined; // nothing is to have changed
    if (reply.error !== 0) return `error ${reply.error}`;
    if (type === NBD_CMD_READ) return this.#wrongData(request, reply.data, later);
    if (type === NBD_CMD_BLOCK_STATUS) return this.#wrongStatus(request, [...reply.extents.values()].flat());
    this.#change(request);
    return undefined;
  }

  /** What is wrong with the whole content of the image, when nothing is on its way any more. */
  wrongContent(content: Buffer): string | undefined {
    return this.#wrongData({ type: NBD_CMD_READ, lengthBytes: this.bytes.length }, content, []);
  }

  #change({ type, offsetBytes = 0, lengthBytes = 0, data }: AskedRequest): void {
    const end = offsetBytes + (data?.length ?? lengthBytes);
    if (type === NBD_CMD_WRITE) this.bytes.set(data ?? [], offsetBytes);
    else if (type === NBD_CMD_WRITE_ZEROES) this.bytes.fill(0, offsetBytes, end);
    else if (type === NBD_CMD_TRIM) this.#trim(offsetBytes, end);
    if (type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES) this.#isTrimmed.fill(0, offsetBytes, end);
  }

  #trim(begin: number, end: number): void {
    for (let at = begin; at < end; at += 1) {
      if (this.#isTrimmed[at] === 0) this.#beforeTrim[at] = this.bytes[at] ?? 0;
    }
    this.#isTrimmed.fill(1, begin, end);
    this.bytes.fill(0, begin, end);
  }

  #wrongData(request: AskedRequest, data: Buffer, later: readonly AskedRequest[]): string | undefined {
    const { offsetBytes = 0, lengthBytes = 0 } = request;
    if (data.length !== lengthBytes) return `${data.length} bytes of data`;
    if (this.bytes.compare(data, 0, lengthBytes, offsetBytes, offsetBytes + lengthBytes) === 0) return undefined;
    const wrong = data.findIndex((byte, index) => {
      const at = offsetBytes + index;
      if (byte === this.bytes[at]) return false;
      if (this.#isTrimmed[at] === 1 && byte === this.#beforeTrim[at]) return false;
      return !later.some((one) => leaves(one, at, byte));
    });
    return wrong < 0 ? undefined : `a wrong byte at ${offsetBytes + wrong}`;
  }

  #wrongStatus({ offsetBytes = 0 }: AskedRequest, extents: readonly StatusExtent[]): string | undefined {
    let at = offsetBytes;
    for (const { lengthBytes, status } of extents) {
      const end = at + lengthBytes;
      if ((status & NBD_STATE_ZERO) !== 0 && this.bytes.subarray(at, end).some((byte) => byte !== 0)) {
        return `the status of zeroes for what is not, between ${at} and ${end}`;
      }
      at = end;
    }
    return undefined;
  }
}

/** Whether `byte` is what a request leaves at a place. */
function leaves({ type, offsetBytes = 0, lengthBytes = 0, data }: AskedRequest, at: number, byte: number): boolean {
  if (!CHANGES.includes(type) || at < offsetBytes || at >= offsetBytes + (data?.length ?? lengthBytes)) return false;
  return type === NBD_CMD_WRITE ? data?.[at - offsetBytes] === byte : byte === 0;
}
