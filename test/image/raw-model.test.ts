import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CACHE_MODES, type CacheMode } from '#tsnbd/image/cache-modes.js';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { emptyExtent, type Image, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { type ImageHandle, imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { directIoAlignment } from '#tsnbd/kernel/direct-io.js';
import { long } from '../long.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EINTR, EMFILE, EOPNOTSUPP } = constants.errno;
const inFolder = useTemporaryFolder();
const runs = long ? 1000 : 40;

const zeroWays = {
  zero: ZERO_MAY_PUNCH,
  'zero, keep storage': 0,
  'zero fast': ZERO_MAY_PUNCH | ZERO_FAST,
  'zero fast, keep storage': ZERO_FAST,
} as const;

/** What a client may do; offset and length are brought into the image. */
const operation = fc.record({
  kind: fc.constantFrom(
    'read',
    'write',
    'write zeroes',
    ...(Object.keys(zeroWays) as (keyof typeof zeroWays)[]),
    'trim',
    'status',
    'cache',
    'flush',
  ),
  offset: fc.oneof(
    fc.nat(),
    fc.nat(200).map((block) => block * 512),
  ),
  length: fc.oneof(
    fc.nat(600),
    fc.nat(70_000),
    fc.nat(40).map((blocks) => blocks * 512),
  ),
  seed: fc.nat(254),
  durable: fc.boolean(),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const modes = fc.record({
  discard: fc.constantFrom('unmap' as const, 'ignore' as const),
  detectZeroes: fc.constantFrom('off' as const, 'on' as const, 'unmap' as const),
});
type Modes = typeof modes extends fc.Arbitrary<infer T> ? T : never;

/** The disk as it must be: simple and slow. */
class Model {
  readonly bytes: Uint8Array;
  /** Bytes that were trimmed: zero or what they were. */
  readonly trimmed: Uint8Array;
  readonly modes: Modes;
  /** Whether the storage below can zero by itself. */
  readonly canZero: boolean;
  /** How far the file reaches at least. */
  written: number;

  constructor(content: Uint8Array, sizeBytes: number, modes: Modes, canZero: boolean) {
    this.bytes = new Uint8Array(sizeBytes);
    this.bytes.set(content);
    this.trimmed = new Uint8Array(sizeBytes);
    this.modes = modes;
    this.canZero = canZero;
    this.written = content.length;
  }

  set(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    this.trimmed.fill(0, offset, offset + data.length);
  }

  write(offset: number, data: Uint8Array): void {
    this.set(offset, data);
    const isWritten = this.modes.detectZeroes === 'off' || data.some((byte) => byte !== 0);
    if (data.length > 0 && isWritten) this.written = Math.max(this.written, offset + data.length);
  }

  allows(offset: number, got: Uint8Array): boolean {
    return got.every((byte, i) => byte === this.bytes[offset + i] || (byte === 0 && this.trimmed[offset + i] === 1));
  }
}

function play(image: Image, model: Model, { kind, seed, durable, ...wish }: Operation): void {
  const offset = wish.offset % image.sizeBytes;
  const length = Math.min(wish.length, image.sizeBytes - offset);
  if (kind === 'flush') expect(image.flush()).toBe(0);
  else if (kind === 'cache') expect(image.cache(offset, length)).toBe(0);
  else if (kind === 'status') checkStatus(image, model, offset, length);
  else if (kind === 'trim') {
    expect(image.trim(offset, length, durable)).toBe(0);
    if (model.modes.discard === 'unmap') model.trimmed.fill(1, offset, offset + length);
  } else if (kind === 'write' || kind === 'write zeroes') {
    const source = new Uint8Array(length + 9).map((_, i) => (kind === 'write' ? ((i + seed) % 255) + 1 : 0));
    expect(image.write(offset, length, source, 7, durable)).toBe(0);
    model.write(offset, source.subarray(7, 7 + length));
  } else if (kind === 'read') {
    const target = new Uint8Array(length + 9).fill(0xee);
    expect(image.read(offset, length, target, 7)).toBe(0);
    expect(model.allows(offset, target.subarray(7, 7 + length))).toBe(true);
    expect([...target.subarray(0, 7), ...target.subarray(7 + length)]).toEqual(new Array(9).fill(0xee));
  } else if (length > 0) {
    const isSlow = (zeroWays[kind] & ZERO_FAST) !== 0 && !model.canZero;
    expect(image.zero(offset, length, zeroWays[kind], durable)).toBe(isSlow ? EOPNOTSUPP : 0);
    if (!isSlow) model.set(offset, new Uint8Array(length));
  }
}

/** Extents cover the range, and what is told to be zeroes reads as zeroes. */
function checkStatus(image: Image, model: Model, offset: number, length: number): void {
  const extent = emptyExtent();
  for (let done = 0; done < length; done += extent.lengthBytes) {
    expect(image.status(offset + done, length - done, extent)).toBe(0);
    expect(extent.lengthBytes).toBeGreaterThan(0);
    expect(extent.lengthBytes).toBeLessThanOrEqual(length - done);
    expect(extent.hole).toBe(extent.zero);
    if (!extent.zero) continue;
    expect(model.allows(offset + done, new Uint8Array(extent.lengthBytes))).toBe(true);
    const target = new Uint8Array(extent.lengthBytes).fill(0xee);
    expect(image.read(offset + done, extent.lengthBytes, target, 0)).toBe(0);
    expect(target.every((byte) => byte === 0)).toBe(true);
  }
}

/**
 * Transfers a part of what is asked, in pieces of `unit` bytes, is interrupted now and then, has no fallocate and perhaps
 * no second fd to give: what a file system may do.
 */
function meanCalls(seed: number, unit: number): FileCalls {
  let turn = seed;
  const part = (length: number, act: (length: number) => number) => {
    turn = (Math.imul(turn, 1_103_515_245) + 12_345) >>> 0;
    const choice = turn >>> 16;
    if (choice % 4 === 0) return -EINTR;
    return act(choice % 4 === 1 ? length : unit * (1 + (choice % Math.max(1, length / unit))));
  };
  return {
    ...fileCalls,
    read: (fd, target, at, length, offset) => part(length, (some) => fileCalls.read(fd, target, at, some, offset)),
    write: (fd, source, at, length, offset) => part(length, (some) => fileCalls.write(fd, source, at, some, offset)),
    fallocate: () => -EOPNOTSUPP,
    reopen: (...call) => (seed % 2 === 0 ? fileCalls.reopen(...call) : -EMFILE),
  };
}

/** What this file system wants of O_DIRECT; where it does not tell, what we take for granted then. */
function blockBytesHere(): number {
  writeFileSync(inFolder('any'), 'x');
  const fd = openSync(inFolder('any'), 'r');
  try {
    return Math.max(512, directIoAlignment(fd)?.offsetBytes ?? 4096);
  } finally {
    closeSync(fd);
  }
}

/** A file of about `wish` bytes that is shown as a whole number of blocks. */
function contentOf(wish: number, blockBytes: number, seed: number): Uint8Array {
  const fileBytes = Math.ceil(wish / blockBytes) * blockBytes - (wish % 512);
  return new Uint8Array(fileBytes).map((_, i) => (i * 7 + seed) % 256);
}

function check(cache: CacheMode, canZero: boolean, callsOf: (seed: number, unit: number) => FileCalls): void {
  const { direct } = CACHE_MODES[cache];
  const here = direct ? blockBytesHere() : 512;
  fc.assert(
    fc.property(
      fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.constantFrom(512, 65_536, 100_001, 131_071)),
      fc.nat(),
      modes,
      // Blocks larger than the file system wants are blocks too.
      fc.constantFrom(here, direct ? 4096 : 512),
      fc.array(operation, { maxLength: 30 }),
      (wish, seed, modes, blockBytes, operations) => {
        const path = inFolder('disk.raw');
        const content = contentOf(wish, blockBytes, seed);
        writeFileSync(path, content);
        const opened = openImage(path, { format: 'raw', readOnly: false, cache, ...modes });
        try {
          const { sizeBytes } = opened;
          const { direct, ...rest } = opened.handle;
          expect(direct === undefined).toBe(!CACHE_MODES[cache].direct);
          const handle: ImageHandle = { ...rest, direct: direct && { ...direct, blockBytes } };
          // Two connections take turns: each reads what the other wrote.
          const images = [0, 1].map(() => imageFrom(handle, callsOf(seed, direct === undefined ? 1 : blockBytes)));
          const model = new Model(content, sizeBytes, modes, canZero);
          operations.forEach((each, i) => {
            const image = images[i % 2];
            if (image !== undefined) play(image, model, each);
          });
          const { size } = fstatSync(handle.fd);
          expect(size).toBeGreaterThanOrEqual(model.written);
          expect(size).toBeLessThanOrEqual(sizeBytes);
          expect(model.allows(0, readFileSync(path))).toBe(true);
          for (const image of images) image.close();
        } finally {
          opened.close();
        }
      },
    ),
    { numRuns: runs, seed: 20_240 },
  );
}

const cacheModes = Object.keys(CACHE_MODES) as CacheMode[];

test.each(cacheModes)('a raw image of any size with cache mode %s is the disk that was written', (cache) =>
  check(cache, true, () => fileCalls),
);

test.each(cacheModes)(
  'a raw image with cache mode %s is the same disk on a file system that does everything piecemeal and cannot zero',
  (cache) => check(cache, false, meanCalls),
);
