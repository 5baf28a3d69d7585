import { closeSync } from 'node:fs';
import { imageLiesOn } from './backing-device.js';
import { ImageError } from './errors.js';
import { printable, shellWord } from './file-name.js';
import { IMAGE_FORMATS, type ImageFormat } from './image-format.js';
import { type LockPlan, layerLockPlan } from './lock.js';
import type { GivenFiles, OpenFile } from './open-file.js';
import { openLocked } from './open-locked.js';
import { type OpenedLayer, openRaw } from './open-raw.js';
import { type PartKind, partPath } from './part-path.js';
import type { LayerHandle } from './qcow2/handle.js';
import type { SnapshotChoice } from './qcow2/load-snapshot.js';
import { openQcow2 } from './qcow2/open-qcow2.js';
import { SeenFiles } from './seen-files.js';

/** Images behind images: more than anybody keeps. */
export const DEPTH_MAX = 64;

export interface ChainOptions {
  readonly direct: boolean;
  /** Reads beside whoever writes. */
  readonly forceShare: boolean;
  /** The device that the image is to become ('nbd0'); nothing of it may lie on it. */
  readonly becomes: string | undefined;
  readonly given: GivenFiles | undefined;
}

/**
 * The files that one image is made of: itself, an external data file, and the images behind it. None may come twice, and
 * the names for them stand in images, whose guests or makers may be hostile: they are names of files and nothing else.
 * Absolute ones, and those that lead out of the image's folder, are followed as QEMU does, and told.
 */
export class ImageChain {
  /** By the paths that they were opened by. */
  readonly files = new Map<string, number>();
  readonly #options: ChainOptions;
  readonly #seen = new SeenFiles();
  #depth = 0;

  constructor(options: ChainOptions) {
    this.#options = options;
  }

  /** To be asked before anything is opened: whoever served a device out of itself would wait for itself. */
  refuseOwnDevice(path: string): void {
    const { becomes } = this.#options;
    if (becomes === undefined || !imageLiesOn(path, becomes)) return;
    throw new ImageError('own-device', `${path} lies on /dev/${becomes}, the device that it was to become`);
  }

  /** Makes an image of a file that is open and locked. Where that fails, the file stays the caller's. */
  open(
    path: string,
    file: OpenFile,
    format: ImageFormat,
    readOnly: boolean,
    snapshot?: SnapshotChoice,
  ): OpenedLayer<LayerHandle> {
    const { direct } = this.#options;
    this.#seen.remember(path, file);
    this.files.set(path, file.fd);
    if (format === 'raw') {
      if (snapshot === undefined) return openRaw(path, file, { readOnly, direct });
      throw new ImageError('unsupported', `${path} is a raw image, and only a qcow2 image has snapshots in it`);
    }
    const told: string[] = [];
    const layer = openQcow2(
      path,
      file,
      { readOnly, direct, snapshot },
      {
        backing: (name, backingFormat) => this.#openBacking(path, name, backingFormat, told),
        data: (name) => this.#openData(path, name, readOnly, told),
      },
    );
    return { ...layer, notices: [...told, ...layer.notices] };
  }

  #openBacking(imagePath: string, name: string, format: string | undefined, told: string[]): OpenedLayer<LayerHandle> {
    const path = this.#pathOf(imagePath, name, 'backing file', told);
    const known = knownFormat(imagePath, name, format);
    this.#depth += 1;
    if (this.#depth > DEPTH_MAX) {
      throw new ImageError(
        'unsupported',
        `${imagePath} is the last of ${DEPTH_MAX} images on one another that are opened`,
      );
    }
    return this.#asPartOf(imagePath, 'backing file', () => {
      this.refuseOwnDevice(path);
      const options = { ...this.#options, mayBeEmpty: true };
      const file = openLocked(path, true, () => this.#plan(layerLockPlan(true)), options);
      try {
        const layer = this.open(path, file, known, true);
        return { ...layer, notices: layer.notices.map(printable) };
      } catch (error) {
        closeSync(file.fd);
        throw error;
      }
    });
  }

  #openData(imagePath: string, name: string, readOnly: boolean, told: string[]): OpenFile {
    const path = this.#pathOf(imagePath, name, 'data file', told);
    return this.#asPartOf(imagePath, 'data file', () => {
      this.refuseOwnDevice(path);
      const file = openLocked(path, readOnly, () => this.#plan(layerLockPlan(readOnly)), this.#options);
      try {
        this.#seen.remember(path, file);
        this.files.set(path, file.fd);
        return file;
      } catch (error) {
        closeSync(file.fd);
        throw error;
      }
    });
  }

  #plan(plan: LockPlan): LockPlan {
    return this.#options.forceShare ? { uses: plan.uses, unshared: [] } : plan;
  }

  #pathOf(imagePath: string, name: string, what: PartKind, told: string[]): string {
    const { path, isOutside } = partPath(imagePath, name, what);
    if (isOutside) told.push(`${imagePath} has a ${what} in another folder: ${printable(path)}`);
    return path;
  }

  /** An error tells which image led to the file, whose name it chose. */
  #asPartOf<T>(imagePath: string, what: string, act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      throw new ImageError(error.code, printable(`${error.message} (the ${what} of ${imagePath})`), { cause: error });
    }
  }
}

/** What an image says of its backing file's format. @throws ImageError 'unsupported' for what it must not, or does not, say */
export function knownFormat(imagePath: string, name: string, format: string | undefined): ImageFormat {
  const known = IMAGE_FORMATS.find((each) => each === format);
  if (known !== undefined) return known;
  if (format !== undefined && format !== '') {
    throw new ImageError('unsupported', `${imagePath} has a backing file of the format '${format}', not raw or qcow2`);
  }
  throw new ImageError(
    'unsupported',
    `${imagePath} does not say what format its backing file '${printable(name)}' has, and to guess is not safe; if you know it: qemu-img rebase -u -F FORMAT -b ${shellWord(name)} ${shellWord(imagePath)}`,
  );
}
