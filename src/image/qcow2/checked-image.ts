import { errnoText } from '../../kernel/errno.js';
import { ImageError } from '../errors.js';
import { fileCalls } from '../file-calls.js';
import type { OpenFile } from '../open-file.js';
import { readZeroed, writeAll } from '../whole-calls.js';
import { AUTOCLEAR_KNOWN } from './features.js';
import type { Header } from './header.js';

/** Where the header has its autoclear features. */
const AUTOCLEAR_AT = 88;
const AUTOCLEAR_BYTES = 8;

/** An image that is looked through: its own file, of which nothing is believed but the header. */
export interface CheckedImage {
  readonly path: string;
  readonly file: OpenFile;
  readonly header: Header;
  /** The header has no autoclear bits any more that nobody knows: they would say that others' extensions are up to date. */
  isPrepared: boolean;
}

export function checkedImage(path: string, file: OpenFile, header: Header): CheckedImage {
  return { path, file, header, isPrepared: (header.autoclear & ~AUTOCLEAR_KNOWN) === 0n };
}

/** Told how much of the work is done. */
export type OnProgress = (done: number, total: number) => void;

/** What lies behind the end of the file is zeroes, as for QEMU. @throws ImageError 'system' */
export function readTable({ path, file }: CheckedImage, offsetBytes: number, target: Uint8Array): void {
  const errno = readZeroed(fileCalls, file.fd, offsetBytes, target.length, target, 0);
  if (errno !== 0) throw new ImageError('system', `cannot read ${path} at byte ${offsetBytes}: ${errnoText(errno)}`);
}

/** @throws ImageError 'system' */
export function writeTable(image: CheckedImage, offsetBytes: number, bytes: Uint8Array): void {
  const { path, file } = image;
  if (!image.isPrepared) prepare(image);
  const errno = writeAll(fileCalls, file.fd, offsetBytes, bytes.length, bytes, 0);
  if (errno !== 0) throw new ImageError('system', `cannot write ${path} at byte ${offsetBytes}: ${errnoText(errno)}`);
}

function prepare(image: CheckedImage): void {
  image.isPrepared = true;
  const known = Buffer.alloc(AUTOCLEAR_BYTES);
  known.writeBigUInt64BE(image.header.autoclear & AUTOCLEAR_KNOWN);
  writeTable(image, AUTOCLEAR_AT, known);
  syncTables(image);
}

/** What was written before is on stable storage. @throws ImageError 'system' */
export function syncTables({ path, file }: CheckedImage): void {
  const result = fileCalls.sync(file.fd);
  if (result !== 0) throw new ImageError('system', `cannot bring ${path} to the disk: ${errnoText(-result)}`);
}
