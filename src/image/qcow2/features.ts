/** The feature bits of a version 3 header (qcow2.rst, 'Header'). */
export const INCOMPATIBLE_DIRTY = 1n << 0n;
export const INCOMPATIBLE_CORRUPT = 1n << 1n;
export const INCOMPATIBLE_DATA_FILE = 1n << 2n;
export const INCOMPATIBLE_COMPRESSION = 1n << 3n;
export const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
export const COMPATIBLE_LAZY_REFCOUNTS = 1n << 0n;
export const AUTOCLEAR_BITMAPS = 1n << 0n;
export const AUTOCLEAR_RAW_DATA = 1n << 1n;

const INCOMPATIBLE_KNOWN =
  INCOMPATIBLE_DIRTY |
  INCOMPATIBLE_CORRUPT |
  INCOMPATIBLE_DATA_FILE |
  INCOMPATIBLE_COMPRESSION |
  INCOMPATIBLE_EXTENDED_L2;

/** Whoever changes an image and does not know a bit clears it first; a repair leaves true what these say. */
export const AUTOCLEAR_KNOWN = AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA;

const FEATURE_BITS = 64;

/** A row of the feature name table: what a bit that may be unknown to us is called. */
export interface FeatureName {
  readonly kind: 'incompatible' | 'compatible' | 'autoclear' | 'other';
  readonly bit: number;
  readonly name: string;
}

/** The incompatible features that we do not know, by the image's own names for them where it has any. */
export function unknownFeatures(incompatible: bigint, names: readonly FeatureName[]): readonly string[] {
  const unknown: string[] = [];
  for (let bit = 0; bit < FEATURE_BITS; bit += 1) {
    if ((incompatible & ~INCOMPATIBLE_KNOWN & (1n << BigInt(bit))) === 0n) continue;
    const named = names.find((row) => row.kind === 'incompatible' && row.bit === bit);
    unknown.push(named === undefined || named.name === '' ? `bit ${bit}` : `'${named.name}' (bit ${bit})`);
  }
  return unknown;
}
