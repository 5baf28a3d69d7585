import { dirname, isAbsolute, resolve } from 'node:path';
import { ImageError } from './errors.js';
import { printable } from './file-name.js';

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
  const path = besideImage(isAbsolute(imagePath) ? imagePath : `${process.cwd()}/${imagePath}`, name);
  return { path, isOutside: !resolve(path).startsWith(folder === '/' ? folder : `${folder}/`) };
}

/** Nothing is taken out of the name: it may lead through a symbolic link, and back from where that leads to. */
export function besideImage(imagePath: string, name: string): string {
  return isAbsolute(name) ? name : imagePath.slice(0, imagePath.lastIndexOf('/') + 1) + name;
}

/** Whether QEMU would not take it for the name of a file. */
export function mayBeProtocol(name: string): boolean {
  return (name.split('/')[0] ?? '').includes(':');
}
