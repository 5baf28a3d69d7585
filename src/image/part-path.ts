import { dirname, isAbsolute, join, resolve } from 'node:path';
import { ImageError } from './errors.js';

/** What an image is made of beside itself. */
export type PartKind = 'backing file' | 'data file';

/**
 * Where a file is that an image names: relative names begin at the image's own folder. Names are hostile: only those of
 * files are taken.
 *
 * @throws ImageError 'unsupported' for what may be a protocol's
 */
export function partPath(
  imagePath: string,
  name: string,
  kind: PartKind,
): { readonly path: string; readonly isOutside: boolean } {
  if (mayBeProtocol(name)) {
    throw new ImageError(
      'unsupported',
      `${imagePath} has the ${kind} '${printable(name)}': only names of files are opened`,
    );
  }
  const folder = dirname(resolve(imagePath));
  const path = isAbsolute(name) ? name : join(folder, name);
  return { path, isOutside: !resolve(path).startsWith(folder === '/' ? folder : `${folder}/`) };
}

/** Whether QEMU would not take it for the name of a file. */
export function mayBeProtocol(name: string): boolean {
  return (name.split('/')[0] ?? '').includes(':');
}

/** What no terminal should be sent is replaced. */
export function printable(name: string): string {
  return name.replace(/\p{Cc}/gu, '?');
}

/**
 * A word of sh(1) that is this text, whatever is in it. Control characters are escaped for the shells that know $'…'; to
 * the others it is another text, but no more than that.
 */
export function shellWord(text: string): string {
  if (!/\p{Cc}/u.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  return `$'${text.replace(/[\p{Cc}'\\]/gu, inOctal)}'`;
}

function inOctal(character: string): string {
  return [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}
