import type { Stats } from 'node:fs';
import { ImageError } from './errors.js';
import type { OpenFile } from './open-file.js';

/** The files that an image is made of, none of which may come twice: it would stand on itself. */
export class SeenFiles {
  readonly #seen = new Set<string>();

  /** @throws ImageError 'damaged' for one that was seen, of which `path` is told */
  remember(path: string, { stat }: OpenFile): void {
    const identity = identityOf(stat);
    if (this.#seen.has(identity)) throw new ImageError('damaged', `${path} is a part of itself`);
    this.#seen.add(identity);
  }
}

/** What tells a file or a block device from every other, whatever its name, until the machine is started again. */
export function identityOf(stat: Stats): string {
  return stat.isBlockDevice() ? `device ${stat.rdev}` : `${stat.dev}:${stat.ino}`;
}
