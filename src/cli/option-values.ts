import { resolve } from 'node:path';
import type { PartitionChoice } from '../attach/attach-request.js';
import { CACHE_MODES, type CacheMode } from '../image/cache-modes.js';
import { IMAGE_FORMATS, type ImageFormat } from '../image/image-format.js';
import type { SnapshotChoice } from '../image/qcow2/load-snapshot.js';
import { parseDeviceName } from '../kernel/device-name.js';
import { isMark } from '../kernel/device-owner.js';
import { KernelError } from '../kernel/errors.js';
import type { KernelApi } from '../kernel/nbd-device.js';
import { STRING_BYTES_MAX } from '../protocol/limits.js';
import { CLIENTS_MAX } from '../server/places.js';
import { isAbstract, PORT_MAX } from '../transport/address.js';
import { TransportError } from '../transport/errors.js';
import { type NbdTarget, parseNbdUri } from '../transport/uri.js';
import { UsageError } from './errors.js';
import type { WordReader } from './option-table.js';

const PARTITIONS_MAX = 1024;
const IDENTIFIER_BYTES_MAX = 255;
/** The most that the module's max_part can be. */
const PARTITION_MAX = 255;

/** How values of options and operands are read. Each function throws a UsageError that says what is wrong. */

/** The kernel keeps a request's time limit in jiffies, 32 bits, of which there may be 1000 in a second. */
const REQUEST_TIMEOUT_SECONDS_MAX = 4_000_000;
/** Each is a queue of the device: more than machines have processors for. */
const CONNECTIONS_MAX = 64;
/** A day, far from what a timer of Node's can hold. */
const HANDSHAKE_LIMIT_SECONDS_MAX = 86_400;
/** What NBD_SET_BLKSIZE takes: 512 up to the page size. */
const SNAPSHOT_KEYS = ['snapshot.id', 'snapshot.name'] as const;
const BLOCK_SIZES_BYTES = ['512', '1024', '2048', '4096'] as const;

export function portNumber(text: string): number {
  return numberIn(text, 1, PORT_MAX, 'a port');
}

/** 0 is no limit. */
export function clientCount(text: string): number {
  return numberIn(text, 0, CLIENTS_MAX, 'a number of clients');
}

/** Of one device to its server. */
export function connectionCount(text: string): number {
  return numberIn(text, 1, CONNECTIONS_MAX, 'a number of connections');
}

/** 0 is no time limit. */
export function timeoutSeconds(text: string): number {
  return numberIn(text, 0, REQUEST_TIMEOUT_SECONDS_MAX, 'a number of seconds');
}

/** How long something may take until it is given up, of which there is no time without limit. */
export function patienceSeconds(text: string): number {
  return numberIn(text, 0, REQUEST_TIMEOUT_SECONDS_MAX, 'a number of seconds');
}

/** 0 is no time limit. */
export function handshakeLimitSeconds(text: string): number {
  return numberIn(text, 0, HANDSHAKE_LIMIT_SECONDS_MAX, 'a number of seconds');
}

/** A GPT may have more than Linux makes devices for. */
export function partitionNumber(text: string): number {
  return numberIn(text, 1, PARTITIONS_MAX, 'a partition');
}

export const blockSizeBytes = Object.assign((text: string) => Number(oneOf(text, BLOCK_SIZES_BYTES, 'a block size')), {
  words: BLOCK_SIZES_BYTES,
});

/** 'nbd0' of `nbd0` or `/dev/nbd0`. */
export function device(text: string): string {
  try {
    return parseDeviceName(text);
  } catch (error) {
    if (error instanceof KernelError) throw new UsageError(error.message);
    throw error;
  }
}

/** 'N', 'label=TEXT' or 'uuid=TEXT'. */
export function partitionChoice(text: string): PartitionChoice {
  const [, kind, value = ''] = /^(label|uuid)=(.*)$/is.exec(text) ?? [];
  if (kind === undefined) return { kind: 'number', number: numberIn(text, 1, PARTITION_MAX, 'a partition') };
  if (value === '') throw new UsageError(`the ${kind} is empty`);
  return { kind: kind.toLowerCase() as 'label' | 'uuid', text: value };
}

/** Like `device`; absent for `auto`, where the kernel is to choose. */
export function deviceOrAuto(text: string): { readonly device: string | undefined } {
  return { device: text === 'auto' ? undefined : device(text) };
}

export const kernelApi = wordOf<KernelApi>(['auto', 'ioctl', 'netlink'], "one of the kernel's interfaces");

/** The kernel takes any text; what begins like our own marks could be taken for one, and sysfs shows a line. */
export function identifier(text: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes > IDENTIFIER_BYTES_MAX) {
    throw new UsageError(`the identifier has ${bytes} bytes, ${IDENTIFIER_BYTES_MAX} are allowed`);
  }
  if (/^[!-~]([ -~]*[!-~])?$/.test(text) && !isMark(text)) return text;
  throw new UsageError(
    `'${text}' is not an identifier (printable ASCII, no blanks around it, and not a mark of tsnbd)`,
  );
}

export const imageFormat = wordOf<ImageFormat>(IMAGE_FORMATS, 'an image format that can be opened');

export const cacheMode = wordOf(Object.keys(CACHE_MODES) as CacheMode[], 'a cache mode');

const anyDiscardMode = wordOf(['unmap', 'on', 'ignore', 'off'], 'a discard mode');

export const discardMode = Object.assign(
  (text: string): 'ignore' | 'unmap' => (/^(unmap|on)$/.test(anyDiscardMode(text)) ? 'unmap' : 'ignore'),
  { words: anyDiscardMode.words },
);

export const detectZeroes = wordOf(['off', 'on', 'unmap'], 'a way to detect zeroes');

/** 'snapshot.id=ID,snapshot.name=NAME' of qemu-nbd, where a comma in a value is typed twice; anything else is an id or a name. */
export function snapshotChoice(text: string): SnapshotChoice {
  if (text === '') throw new UsageError('an empty text is not a snapshot');
  if (!text.startsWith('snapshot.')) return { idOrName: text };
  const given = new Map<string, string>();
  for (const part of text.split(/(?<=^(?:[^,]|,,)*),(?!,)/)) {
    const [key, value] = pair(
      part,
      'KEY=VALUE',
      (word) => oneOf(word, SNAPSHOT_KEYS, 'a way to choose a snapshot'),
      String,
    );
    if (given.has(key)) throw new UsageError(`${key} is there twice`);
    if (value === '') throw new UsageError(`${key} is empty`);
    given.set(key, value.replaceAll(',,', ','));
  }
  return { id: given.get('snapshot.id'), name: given.get('snapshot.name') };
}

/** '' is the server's default export. */
export function exportName(text: string): string {
  return nbdString(text, 'the name');
}

export function description(text: string): string {
  return nbdString(text, 'the description');
}

/** The path of a socket is made absolute, as `path` does. */
export function nbdUri(text: string): NbdTarget {
  try {
    const { address, exportName } = parseNbdUri(text);
    if (address.kind === 'tcp' || isAbstract(address.path)) return { address, exportName };
    return { address: { ...address, path: resolve(address.path) }, exportName };
  } catch (error) {
    if (error instanceof TransportError) throw new UsageError(error.message);
    throw error;
  }
}

/** Two values, of which the first ends at the first equals sign; `form` shows both: 'NAME=PATH'. */
export function pair<First, Second>(
  text: string,
  form: string,
  readFirst: (text: string) => First,
  readSecond: (text: string) => Second,
): readonly [First, Second] {
  const at = text.indexOf('=');
  if (at < 0) throw new UsageError(`'${text}' is not ${form}`);
  return [readFirst(text.slice(0, at)), readSecond(text.slice(at + 1))];
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

/** A path that is used by this process only, and shown as it was typed. */
export function fileName(text: string): string {
  if (text !== '') return text;
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

/** Reads one of `words` as `oneOf` does, and lets others know them. */
export function wordOf<Word extends string>(words: readonly Word[], meaning: string): WordReader<Word> {
  return Object.assign((text: string) => oneOf(text, words, meaning), { words });
}

/** One of `words`, which `meaning` calls together: 'a cache mode'. */
export function oneOf<Word extends string>(text: string, words: readonly Word[], meaning: string): Word {
  const word = words.find((each) => each === text);
  if (word !== undefined) return word;
  throw new UsageError(`'${text}' is not ${meaning} (${words.join(', ')})`);
}

function nbdString(text: string, what: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes <= STRING_BYTES_MAX) return text;
  throw new UsageError(`${what} has ${bytes} bytes, NBD allows ${STRING_BYTES_MAX}`);
}
