import { expect } from 'vitest';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';

/** One change or read of an image; the model is the disk as it must be. */
export function changeAtRandom(image: Image, model: Buffer, random: (below: number) => number): void {
  const length = Math.min(image.sizeBytes, 512 * (1 + random(random(5) === 0 ? 500 : 30)));
  const offset = 512 * random(1 + (image.sizeBytes - length) / 512);
  const part = model.subarray(offset, offset + length);
  const kind = random(11);
  if (kind < 6) {
    const data = Buffer.alloc(length + 7, 1 + random(255));
    expect(image.write(offset, length, data, 7, kind === 5)).toBe(0);
    part.fill(data[7] ?? 0);
  } else if (kind === 6) {
    expect(image.zero(offset, length, random(2) === 0 ? ZERO_MAY_PUNCH : 0, false)).toBe(0);
    part.fill(0);
  } else if (kind === 7) {
    const old = Buffer.from(part);
    expect(image.trim(offset, length, false)).toBe(0);
    expect(image.read(offset, length, part, 0)).toBe(0);
    expect(part.every((byte, i) => byte === 0 || byte === old[i])).toBe(true);
  } else if (kind === 8) expect(image.flush()).toBe(0);
  else {
    const got = Buffer.alloc(length);
    expect(image.read(offset, length, got, 0)).toBe(0);
    expect(got.equals(part)).toBe(true);
  }
}
