const HIGH = 2 ** 32;
const MASKS: Readonly<Record<number, number>> = { 1: 1, 2: 3, 4: 15 };

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
