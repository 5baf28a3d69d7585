// The raw image that all servers are given, and where its bytes are: in the page cache or only on the disk.

import { constants } from 'node:buffer';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  existsSync,
  fdatasyncSync,
  openSync,
  readFileSync,
  readSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { freemem } from 'node:os';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE_BYTES = 16 * 2 ** 20;
const BLOCK_BYTES = 4096;
const TMPFS_MAGIC = 0x01021994;

const WARM_READS_MAX = 5;
const WARM_PIECE_BYTES = 2 ** 20;
const QUIET_MS = 500;
const QUIET_TRIES_MAX = 60;
/** Share of the image that may be in the page cache after it was dropped. */
const COLD_SHARE_MAX = 0.001;

/**
 * Writes an image without holes in which every block of 4 KiB is another one.
 * @param {string} path
 * @param {number} sizeBytes
 */
export function makeImage(path, sizeBytes) {
  const piece = randomBytes(Math.min(PIECE_BYTES, sizeBytes));
  const fd = openSync(path, 'w');
  for (let at = 0; at < sizeBytes; at += piece.length) {
    for (let block = 0; block < piece.length; block += BLOCK_BYTES) piece.writeDoubleLE(at + block, block);
    writeSync(fd, piece);
  }
  closeSync(fd);
}

/** The qcow2 image with all that a raw one has. @param {string} raw */
export function fullOf(raw) {
  return `${raw}.qcow2`;
}

/**
 * The qcow2 image for a case, by qemu-img: the full one is made once of the raw image, the others anew each time.
 * @param {string} raw
 * @param {'full' | 'new' | 'backed'} kind
 */
export async function qcow2Image(raw, kind) {
  const full = fullOf(raw);
  if (kind !== 'new' && !existsSync(full)) {
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, full]);
    settle(full);
  }
  if (kind === 'full') return full;
  const path = `${raw}.${kind}.qcow2`;
  const backing = kind === 'backed' ? ['-F', 'qcow2', '-b', full] : [];
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, String(statSync(raw).size)]);
  await untilQuiet(path);
  return path;
}

/**
 * Waits until the file's disk does nothing. A file system that is mounted with `discard` tells the disk what a file had that was made
 * empty, extent by extent, when it commits: of a qcow2 image that was written at random that takes seconds, and all that write wait.
 * @param {string} path
 */
async function untilQuiet(path) {
  execFileSync('sync', ['-f', path]);
  const number = execFileSync('findmnt', ['-n', '-o', 'MAJ:MIN', '-T', path], { encoding: 'utf8' }).trim();
  const counters = `/sys/dev/block/${number}/stat`;
  if (!existsSync(counters)) return; // a file system without a disk, or of several
  let before = '';
  for (let tries = 0; tries < QUIET_TRIES_MAX; tries++) {
    const now = readFileSync(counters, 'utf8');
    if (now === before) return;
    before = now;
    await sleep(QUIET_MS);
  }
  throw new Error(`the disk below ${path} is never quiet`);
}

/**
 * Touches as much memory as a file of that size will take in the page cache, as far as it is free. The host of a virtual machine may
 * have taken free memory away (free page reporting), and gives it back page by page when it is touched: who is first pays for that.
 * @param {number} sizeBytes
 */
export function touchMemory(sizeBytes) {
  const bytes = Math.min(sizeBytes, Math.floor(freemem() / 2), constants.MAX_LENGTH);
  execFileSync(process.execPath, ['-e', `Buffer.alloc(${bytes}, 1)`]);
}

/**
 * Writes the image's dirty pages to the disk, so that nobody pays for another's writes.
 * @param {string} path
 */
export function settle(path) {
  const fd = openSync(path, 'r+');
  fdatasyncSync(fd);
  closeSync(fd);
}

/** Images whose pages in the page cache are small ones. */
const inSmallPages = new Set();

/**
 * Reads the image into the page cache, in pages of 4 KiB, unless it is there like that: where the file system has taken large
 * pages (up to 2 MiB), ext4 looks at each block of one for every write into it, and 4 KiB take 40 us in any server. Some kernels
 * take pages away that nobody has used for a while: then once is not enough.
 * @param {string} path
 * @param {number} sizeBytes
 */
export function warm(path, sizeBytes) {
  if (!inSmallPages.has(path) && isOnDisk(dirname(path))) drop(path, sizeBytes);
  inSmallPages.add(path);
  for (let reads = 0; cachedBytes(path) < sizeBytes; reads++) {
    if (reads === WARM_READS_MAX) throw new Error('the image does not stay in the page cache');
    readAll(path);
  }
}

/** For POSIX_FADV_RANDOM the kernel takes no large pages. @param {string} path */
function readAll(path) {
  const { size } = statSync(path);
  const piece = Buffer.allocUnsafe(WARM_PIECE_BYTES);
  if (size >= piece.length) {
    const hint = ['--ioengine=psync', '--fadvise_hint=random', '--readonly', '--rw=read', `--bs=${piece.length}`];
    execFileSync('fio', ['--name=warm', `--filename=${path}`, ...hint], { stdio: ['ignore', 'ignore', 'inherit'] });
  }
  // fio leaves out what is no whole piece.
  const fd = openSync(path, 'r');
  readSync(fd, piece, 0, piece.length, Math.max(0, size - piece.length));
  closeSync(fd);
}

/**
 * Drops the image from the page cache by POSIX_FADV_DONTNEED (which is what dd's `nocache` is), and looks whether it went.
 * @param {string} path
 * @param {number} sizeBytes
 */
export function drop(path, sizeBytes) {
  inSmallPages.delete(path);
  execFileSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
  const left = cachedBytes(path);
  if (left > sizeBytes * COLD_SHARE_MAX) throw new Error(`${left} bytes of the image stayed in the page cache`);
}

/** @param {string} folder */
export function isOnDisk(folder) {
  return statfsSync(folder).type !== TMPFS_MAGIC;
}

/** @param {string} path */
export async function sha256(path) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}

/** @param {string} path */
function cachedBytes(path) {
  return Number(execFileSync('fincore', ['--bytes', '--noheadings', '--raw', '--output', 'RES', path]));
}
