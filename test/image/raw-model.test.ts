import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { RawImage } from '#tsnbd/image/raw.js';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';
import { useTemporaryFolder } from './temporary-folder.js';

const { EINTR, EOPNOTSUPP } = constants.errno;
const inFolder = useTemporaryFolder();
const runs = process.env.TSNBD_TEST_LONG === '1' ? 5000 : 150;

/** What a client may do; offset and length are brought into the image. */
const operation = fc.record({
  kind: fc.constantFrom('read', 'write', 'zero', 'zero, keep storage', 'trim', 'flush'),
  offset: fc.nat(),
  length: fc.oneof(fc.nat(600), fc.nat(70_000)),
  seed: fc.nat(254),
  durable: fc.boolean(),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** The disk as it must be: simple and slow. */
class Model {
  readonly bytes: Uint8Array;
  /** Bytes that were trimmed: zero or what they were. */
  readonly trimmed: Uint8Array;
  /** How far the file reaches at least. */
  written: number;

  constructor(content: Uint8Array, sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.bytes.set(content);
    this.trimmed = new Uint8Array(sizeBytes);
    this.written = content.length;
  }

  set(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    this.trimmed.fill(0, offset, offset + data.length);
  }

  allows(offset: number, got: Uint8Array): boolean {
    return got.every((byte, i) => byte === this.bytes[offset + i] || (byte === 0 && this.trimmed[offset + i] === 1));
  }
}

function play(image: RawImage, model: Model, { kind, seed, durable, ...wish }: Operation): void {
  const offset = wish.offset % image.sizeBytes;
  const length = Math.min(wish.length, image.sizeBytes - offset);
  if (kind === 'flush') expect(image.flush()).toBe(0);
  else if (kind === 'trim') {
    expect(image.trim(offset, length, durable)).toBe(0);
    model.trimmed.fill(1, offset, offset + length);
  } else if (kind === 'write') {
    const source = new Uint8Array(length + 9).map((_, i) => ((i + seed) % 255) + 1);
    expect(image.write(offset, length, source, 7, durable)).toBe(0);
    model.set(offset, source.subarray(7, 7 + length));
    if (length > 0) model.written = Math.max(model.written, offset + length);
  } else if (kind.startsWith('zero')) {
    expect(image.zero(offset, length, kind === 'zero', durable)).toBe(0);
    model.set(offset, new Uint8Array(length));
  } else {
    const target = new Uint8Array(length + 9).fill(0xee);
    expect(image.read(offset, length, target, 7)).toBe(0);
    expect(model.allows(offset, target.subarray(7, 7 + length))).toBe(true);
    expect([...target.subarray(0, 7), ...target.subarray(7 + length)]).toEqual(new Array(9).fill(0xee));
  }
}

/** Transfers a part of what is asked, is interrupted now and then, and has no fallocate: what a file system may do. */
function meanCalls(seed: number): FileCalls {
  let turn = seed;
  const part = (length: number, act: (length: number) => number) => {
    turn = (Math.imul(turn, 1_103_515_245) + 12_345) >>> 0;
    const choice = turn >>> 16;
    if (choice % 4 === 0) return -EINTR;
    return act(choice % 4 === 1 ? length : 1 + (choice % length));
  };
  return {
    ...fileCalls,
    read: (fd, target, at, length, offset) => part(length, (some) => fileCalls.read(fd, target, at, some, offset)),
    write: (fd, source, at, length, offset) => part(length, (some) => fileCalls.write(fd, source, at, some, offset)),
    fallocate: () => -EOPNOTSUPP,
  };
}

function check(callsOf: (seed: number) => FileCalls): void {
  fc.assert(
    fc.property(
      fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.constantFrom(512, 65_536, 100_001, 131_071)),
      fc.nat(),
      fc.array(operation, { maxLength: 30 }),
      (fileBytes, seed, operations) => {
        const path = inFolder('disk.raw');
        const content = new Uint8Array(fileBytes).map((_, i) => (i * 7 + seed) % 256);
        writeFileSync(path, content);
        const fd = openSync(path, 'r+');
        try {
          const sizeBytes = Math.ceil(fileBytes / 512) * 512;
          const handle = { format: 'raw', guessed: false, fd, fileBytes, sizeBytes, readOnly: false } as const;
          const shared = newSharedFields();
          // Two connections take turns: each reads what the other wrote.
          const images = [0, 1].map(() => new RawImage({ ...handle, shared }, callsOf(seed)));
          const model = new Model(content, sizeBytes);
          operations.forEach((each, i) => {
            const image = images[i % 2];
            if (image !== undefined) play(image, model, each);
          });
          const { size } = fstatSync(fd);
          expect(size).toBeGreaterThanOrEqual(model.written);
          expect(size).toBeLessThanOrEqual(sizeBytes);
          expect(model.allows(0, readFileSync(path))).toBe(true);
          for (const image of images) image.close();
        } finally {
          closeSync(fd);
        }
      },
    ),
    { numRuns: runs, seed: 20_240 },
  );
}

test('a raw image of any size is the disk that was written', () => check(() => fileCalls));

test('a raw image is the same disk on a file system that does everything piecemeal and cannot zero', () =>
  check(meanCalls));
