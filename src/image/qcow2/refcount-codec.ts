const HIGH = 2 ** 32;
const MASKS: Readonly<Record<number, number>> = { 1: 1, 2: 3, 4: 15 };
/** By the width of refcounts, of each byte: 1 if none of its refcounts is 0. */
const FULL: Readonly<Record<number, Uint8Array>> = { 1: fullBytes(1), 2: fullBytes(2), 4: fullBytes(4) };

/**
 * The refcount with the number `index` in a block, or a slice of one, that begins at `at`; `bits` is its width (qcow2.rst,
 * 'Refcount block entry'). One of 64 bits above 2^53 is not exact, and none such is ever right.
 */
export function refcountAt(bytes: Uint8Array, at: number, index: number, bits: number): number {
  if (bits < 8) {
    const mask = MASKS[bits] ?? 0;
    return ((bytes[at + ((index * bits) >>> 3)] ?? 0) >>> ((index * bits) & 7)) & mask;
  }
  const size = bits / 8;
  let value = 0;
  for (let byte = 0; byte < size; byte += 1) value = value * 256 + (bytes[at + index * size + byte] ?? 0);
  return value;
}

/** The number of the first refcount that is 0, from `index` on and before `end`, or `end`; whole bytes are passed over fast. */
export function firstZero(bytes: Uint8Array, at: number, index: number, end: number, bits: number): number {
  const isFull = FULL[bits];
  const perByte = 8 / bits;
  for (let each = index; each < end; each += 1) {
    if (isFull !== undefined) {
      while (each < end && each % perByte === 0 && isFull[bytes[at + each / perByte] ?? 0] !== 0) each += perByte;
      if (each >= end) return end;
    }
    if (refcountAt(bytes, at, each, bits) === 0) return each;
  }
  return end;
}

function fullBytes(bits: number): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, byte) => {
    for (let index = 0; index < 8 / bits; index += 1)
      if (refcountAt(Uint8Array.of(byte), 0, index, bits) === 0) return 0;
    return 1;
  });
}

/** Writes one; `value` fits into `bits`. */
export function putRefcount(bytes: Uint8Array, at: number, index: number, bits: number, value: number): void {
  if (bits < 8) {
    const byteAt = at + ((index * bits) >>> 3);
    const shift = (index * bits) & 7;
    bytes[byteAt] = ((bytes[byteAt] ?? 0) & ~((MASKS[bits] ?? 0) << shift)) | (value << shift);
    return;
  }
  const size = bits / 8;
  let high = Math.floor(value / HIGH);
  let low = value % HIGH;
  for (let byte = size - 1; byte >= 0; byte -= 1) {
    bytes[at + index * size + byte] = low % 256;
    low = Math.floor(low / 256) + (high % 256) * 2 ** 24;
    high = Math.floor(high / 256);
  }
}
