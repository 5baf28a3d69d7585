import { ProtocolError } from './errors.js';
import { SHOWN_TEXT_CHARACTERS_MAX, STRING_BYTES_MAX } from './limits.js';

/**
 * The string in `bytes` (proto.md, 'Conventions': UTF-8, no NUL, at most 4096 bytes). Throws a ProtocolError that calls
 * the string `what` and lays the fault on `sender` ('the server').
 */
export function decodeString(bytes: Uint8Array, sender: string, what: string): string {
  if (bytes.length > STRING_BYTES_MAX) {
    throw new ProtocolError(
      'too-big',
      `${sender} sent ${what} of ${bytes.length} bytes; ${STRING_BYTES_MAX} are allowed`,
    );
  }
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch (cause) {
    throw new ProtocolError('violation', `${sender} sent ${what} that is not UTF-8`, { cause });
  }
  if (text.includes('\0')) throw new ProtocolError('violation', `${sender} sent ${what} with a NUL character in it`);
  return text;
}

/** The bytes of a string of our own side, or a ProtocolError that says why `what` cannot be sent. */
export function encodeString(text: string, what: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > STRING_BYTES_MAX) {
    throw new ProtocolError('too-big', `${what} is ${bytes.length} bytes long; NBD allows ${STRING_BYTES_MAX}`);
  }
  if (text.includes('\0')) throw new ProtocolError('invalid', `${what} has a NUL character in it`);
  return bytes;
}

/** A peer's text for one line of a terminal or log: without control or direction characters, and not for ever. */
export function printableText(text: string): string {
  const plain = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  const characters = Array.from(plain);
  if (characters.length <= SHOWN_TEXT_CHARACTERS_MAX) return plain;
  return `${characters.slice(0, SHOWN_TEXT_CHARACTERS_MAX - 1).join('')}…`;
}

// A byte order mark is part of a name like any other character.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
