import { shellQuoted } from '../base/shell-quoted.js';

/** What a byte that is no UTF-8 stands for in a text: a lone surrogate, as in PEP 383. Half of them are used. */
const ESCAPED_BYTE = 0xdc00;

/**
 * The name of a file, as an image has it: any bytes. Those of UTF-8 are its text; in another name each byte that is not ASCII
 * is escaped, so that `pathBytes` gives the same bytes again, whatever the text has been joined to.
 */
export function nameFromBytes(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf8');
  if (Buffer.from(text).equals(bytes)) return text;
  const escaped = Array.from(bytes, (byte) => String.fromCharCode(byte < 0x80 ? byte : ESCAPED_BYTE + byte));
  return escaped.join('');
}

/** What node:fs is to be asked for. */
export function pathBytes(path: string): string | Buffer {
  if (!/\p{Cs}/u.test(path)) return path;
  return Buffer.concat(Array.from(path, characterBytes));
}

function characterBytes(character: string): Buffer {
  return /\p{Cs}/u.test(character) ? Buffer.of(character.charCodeAt(0) - ESCAPED_BYTE) : Buffer.from(character);
}

/** What no terminal should be sent, or has a letter for, is replaced. */
export function printable(name: string): string {
  return name.replace(/[\p{Cc}\p{Cs}]/gu, '?');
}

/**
 * A word of sh(1) that is this name, whatever is in it. Control characters and odd bytes are escaped for the shells that know
 * $'…'; to the others it is another text, but no more than that.
 */
export function shellWord(text: string): string {
  if (!/[\p{Cc}\p{Cs}]/u.test(text)) return shellQuoted(text);
  return `$'${text.replace(/[\p{Cc}\p{Cs}'\\]/gu, inOctal)}'`;
}

function inOctal(character: string): string {
  return [...characterBytes(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}
