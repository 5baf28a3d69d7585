import { UsageError } from './errors.js';

/** Sizes as QEMU's and libnbd's tools write and read them: letters stand for powers of 1024. */

const LETTERS = ['', 'K', 'M', 'G', 'T', 'P', 'E'];
const KIB = 1024;
/** Digits behind the point; nobody needs more, and each costs time. */
const FRACTION_DIGITS_MAX = 30;

/** Bytes of '512', '0x200', '10G' or '1.5k'; what is less than a byte is dropped. */
export function sizeBytes(text: string): number {
  const bytes = hexBytes(text) ?? decimalBytes(text);
  if (bytes === undefined) {
    throw new UsageError(`'${text}' is not a size: a number, behind which k, M, G, T, P or E may stand`);
  }
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError(`'${text}' is too large: at most ${Number.MAX_SAFE_INTEGER} bytes can be used`);
  }
  return Number(bytes);
}

/** As qemu-img does: '4 KiB', '1.5 GiB', three digits at most. */
export function sizeInWords(bytes: number): string {
  let power = 0;
  for (let rest = bytes; rest >= 1000 && power < LETTERS.length - 1; rest /= KIB) power += 1;
  const value = Number((bytes / KIB ** power).toPrecision(3));
  const letter = LETTERS[power] ?? '';
  return `${value} ${letter === '' ? '' : `${letter}i`}B`;
}

/** As nbdinfo does: '1M' of 1048576, '1048577' of one more. */
export function exactSize(bytes: number): string {
  let power = 0;
  let value = bytes;
  for (; value > 0 && value % KIB === 0 && power < LETTERS.length - 1; power += 1) value /= KIB;
  return `${value}${LETTERS[power] ?? ''}`;
}

function hexBytes(text: string): bigint | undefined {
  return /^0x[0-9a-f]{1,16}$/i.test(text) ? BigInt(text) : undefined;
}

function decimalBytes(text: string): bigint | undefined {
  const [, whole = '', fraction = '', letter = 'b'] = /^([0-9]{1,20})(?:\.([0-9]*))?([bkmgtpe])?$/i.exec(text) ?? [];
  const power = Math.max(0, LETTERS.indexOf(letter.toUpperCase()));
  if (whole === '' || fraction.length > FRACTION_DIGITS_MAX) return undefined;
  if (text.includes('.') && power === 0) return undefined; // there are no parts of a byte
  const unit = BigInt(KIB) ** BigInt(power);
  return BigInt(whole) * unit + (BigInt(`0${fraction}`) * unit) / 10n ** BigInt(fraction.length);
}
