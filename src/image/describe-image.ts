import { closeSync } from 'node:fs';
import { ImageError } from './errors.js';
import { printable } from './file-name.js';
import { DEPTH_MAX, knownFormat } from './image-chain.js';
import type { ImageFormat } from './image-format.js';
import type { OpenFile } from './open-file.js';
import { type OpenOptions, openAsFormat } from './open-image.js';
import { openRaw } from './open-raw.js';
import { besideImage, mayBeProtocol, partPath } from './part-path.js';
import { describeQcow2, type Qcow2Description } from './qcow2/describe-qcow2.js';
import { SeenFiles } from './seen-files.js';

/** How an image is looked at. */
export type LookOptions = Pick<OpenOptions, 'format' | 'forceShare'>;

/** What there is to say of an image; what only one format has is absent in others. */
export interface ImageDescription {
  readonly path: string;
  readonly formatName: ImageFormat;
  /** What clients see. */
  readonly virtualSizeBytes: number;
  /** The storage that its file takes; 0 of a device. */
  readonly allocatedBytes: number;
  /** It was not closed in order, and has to be looked through before it is written to. */
  readonly isDirty: boolean;
  readonly backing: BackingDescription | undefined;
  readonly qcow2: Qcow2Description | undefined;
  /** What the user should know besides, a sentence each. */
  readonly notices: readonly string[];
}

export interface BackingDescription {
  /** As it stands in the image. */
  readonly name: string;
  /** From the folder of the image's path on. */
  readonly path: string;
  /** Absent: the image does not say. */
  readonly format: string | undefined;
}

const blockBytes = 512;

/** Opens an image for reading, and nothing behind it, tells what it is, and closes it. @throws ImageError */
export function describeImage(path: string, options: LookOptions): ImageDescription {
  return described(path, options, () => {});
}

/** The same of an image and of all that is behind it, none of which may come twice. @throws ImageError */
export function describeChain(path: string, options: LookOptions): readonly ImageDescription[] {
  const seen = new SeenFiles();
  const look = (file: OpenFile) => seen.remember(path, file);
  const chain = [described(path, options, look)];
  for (let last = chain[0]; last?.backing !== undefined; last = chain.at(-1)) {
    if (chain.length > DEPTH_MAX)
      throw new ImageError('unsupported', `${path} stands on more than ${DEPTH_MAX} images`);
    chain.push(describedBacking(last.path, last.backing, options, look));
  }
  return chain;
}

/** An error tells of names that images chose. */
function describedBacking(
  imagePath: string,
  { name, path, format }: BackingDescription,
  options: LookOptions,
  look: (file: OpenFile) => void,
): ImageDescription {
  try {
    partPath(imagePath, name, 'backing file');
    return described(path, { ...options, format: knownFormat(imagePath, name, format), mayBeEmpty: true }, look);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(error.code, printable(error.message), { cause: error });
  }
}

function described(
  path: string,
  options: LookOptions & Pick<OpenOptions, 'mayBeEmpty'>,
  look: (file: OpenFile) => void,
): ImageDescription {
  const { file, format } = openAsFormat(path, { ...options, readOnly: true });
  try {
    look(file);
    const known = { path, formatName: format, allocatedBytes: file.stat.blocks * blockBytes };
    if (format === 'raw') {
      const { handle, notices } = openRaw(path, file, { readOnly: true, direct: false });
      const virtualSizeBytes = handle.sizeBytes;
      return { ...known, virtualSizeBytes, isDirty: false, backing: undefined, qcow2: undefined, notices };
    }
    const qcow2 = describeQcow2(path, file);
    const { sizeBytes, isDirty, backingName, backingFormat } = qcow2.header;
    const backing =
      backingName === undefined
        ? undefined
        : { name: backingName, path: pathFrom(path, backingName), format: backingFormat };
    return { ...known, virtualSizeBytes: sizeBytes, isDirty, backing, qcow2, notices: [] };
  } finally {
    closeSync(file.fd);
  }
}

/** As QEMU shows it: what may be a protocol's name is no path. */
function pathFrom(imagePath: string, name: string): string {
  return mayBeProtocol(name) ? name : besideImage(imagePath, name);
}
