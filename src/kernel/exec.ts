import { expect } from './errors.js';
import { libc } from './libc.js';
import { F_SETFD } from './libc-abi.js';

/**
 * Makes this process another program with another command line, threads and all: execve(2). It returns only by throwing.
 * Of its fds, all of which Node has closed on exec, it keeps the standard three.
 *
 * @throws KernelError 'system'
 */
export function becomeProgram(program: string, words: readonly string[]): never {
  for (const fd of [0, 1, 2]) libc.fcntl(fd, F_SETFD, 0); // one that is not there needs nothing
  const environment = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
  expect(`start ${program}`, libc.execve(cText(program), cTexts([program, ...words]), cTexts(environment)));
  throw new Error('execve(2) returned');
}

/** The texts live as long as the program does. */
const cTextsKept: Buffer[] = [];

function cText(text: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text) + 1);
  bytes.write(text);
  bytes[bytes.length - 1] = 0;
  cTextsKept.push(bytes);
  return bytes;
}

function cTexts(texts: readonly string[]): Buffer {
  const pointers = Buffer.alloc((texts.length + 1) * 8);
  for (const [index, text] of texts.entries()) {
    pointers.writeBigUInt64LE(BigInt(libc.addressOf(cText(text))), index * 8);
  }
  return pointers;
}
