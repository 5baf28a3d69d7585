import { resolve } from 'node:path';
import { parseDeviceName } from '../kernel/device-name.js';
import { KernelError } from '../kernel/errors.js';
import { STRING_BYTES_MAX } from '../protocol/limits.js';
import { UsageError } from './errors.js';

/** How values of options and operands are read. Each function throws a UsageError that says what is wrong. */

/** Registered for NBD (proto.md, 'Protocol phases' of newstyle negotiation). */
export const DEFAULT_PORT = 10_809;
const PORT_MAX = 65_535;
/** Each client has a thread of its own. */
const CLIENTS_MAX = 1024;
/** The kernel keeps a request's time limit in jiffies, 32 bits, of which there may be 1000 in a second. */
const REQUEST_TIMEOUT_SECONDS_MAX = 4_000_000;
/** What NBD_SET_BLKSIZE takes: 512 up to the page size. */
const BLOCK_SIZES_BYTES = [512, 1024, 2048, 4096];

export function portNumber(text: string): number {
  return numberIn(text, 1, PORT_MAX, 'a port');
}

/** 0 is no limit. */
export function clientCount(text: string): number {
  return numberIn(text, 0, CLIENTS_MAX, 'a number of clients');
}

/** 0 is no time limit. */
export function timeoutSeconds(text: string): number {
  return numberIn(text, 0, REQUEST_TIMEOUT_SECONDS_MAX, 'a number of seconds');
}

export function blockSizeBytes(text: string): number {
  const value = isNumber(text) ? Number(text) : Number.NaN;
  if (BLOCK_SIZES_BYTES.includes(value)) return value;
  throw new UsageError(`'${text}' is not a block size (${BLOCK_SIZES_BYTES.join(', ')})`);
}

/** 'nbd0' of `nbd0` or `/dev/nbd0`. */
export function device(text: string): string {
  try {
    return parseDeviceName(text);
  } catch (error) {
    if (error instanceof KernelError) throw new UsageError(error.message);
    throw error;
  }
}

export function imageFormat(text: string): 'raw' {
  if (text === 'raw') return text;
  throw new UsageError(`the image format '${text}' is not supported, only 'raw' is`);
}

/** '' is the server's default export. */
export function exportName(text: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes <= STRING_BYTES_MAX) return text;
  throw new UsageError(`the name has ${bytes} bytes, NBD allows ${STRING_BYTES_MAX}`);
}

export function host(text: string): string {
  if (text !== '') return text;
  throw new UsageError('an empty text is not a host');
}

/** Made absolute, for a process of ours in the background has another working folder. */
export function path(text: string): string {
  if (text !== '') return resolve(text);
  throw new UsageError('an empty text is not a path');
}

/** Decimal digits and nothing else: no sign, no blank, and no leading 0, which might have meant octal. */
function isNumber(text: string): boolean {
  return /^(0|[1-9][0-9]*)$/.test(text);
}

function numberIn(text: string, min: number, max: number, meaning: string): number {
  const value = Number(text);
  if (isNumber(text) && value >= min && value <= max) return value;
  throw new UsageError(`'${text}' is not ${meaning} (${min} to ${max})`);
}
