import { resolve } from 'node:path';
import { type CreationWatch, FileInTheMaking, fillRaw } from './creation.js';
import { ImageError } from './errors.js';
import { NewFiles } from './new-files.js';
import { type OpenedImage, openImage } from './open-image.js';
import { rawSizeBytes } from './open-raw.js';
import { partPath } from './part-path.js';
import type { RawPreallocation } from './preallocations.js';
import { writeNewQcow2 } from './qcow2/create-qcow2.js';
import { newHeader } from './qcow2/new-header.js';
import { layoutOf, type NewQcow2 } from './qcow2/new-layout.js';

/** What a new image is to be. */
export type ImageForm = { readonly format: 'raw'; readonly preallocation: RawPreallocation } | NewQcow2;

export interface ImageWish {
  readonly path: string;
  /** Absent: as large as the backing file, which is looked at. */
  readonly sizeBytes: number | undefined;
  readonly form: ImageForm;
}

/** The backing file, held as long as the image is in the making: it cannot become its own. */
interface Behind {
  readonly opened: OpenedImage | undefined;
  readonly notices: readonly string[];
}

/**
 * Makes an image, its size rounded up to whole sectors, as QEMU does: a file that is there already is emptied first. Where
 * it cannot be made, new files are removed again, and one that was there is left empty. What is made is on stable storage.
 *
 * @throws ImageError
 */
export async function createImage({ path, sizeBytes, form }: ImageWish, watch: CreationWatch): Promise<void> {
  const { opened, notices } = openBehind(path, form);
  try {
    const wantedBytes = sizeBytes ?? opened?.sizeBytes;
    if (wantedBytes === undefined) throw new ImageError('unsupported', `${path} needs a size`);
    const wholeBytes = rawSizeBytes(wantedBytes);
    if (!Number.isSafeInteger(wholeBytes)) {
      throw new ImageError('not-an-image', `${path} would be larger than ${Number.MAX_SAFE_INTEGER} bytes`);
    }
    if (form.format === 'raw') {
      watch.onBegin(wantedBytes, notices);
      await withFiles(async (files) => {
        const file = new FileInTheMaking(path, files.make(path), watch);
        files.empty();
        await fillRaw(file, wholeBytes, form.preallocation);
      });
      return;
    }
    const layout = layoutOf(path, form, wholeBytes);
    const header = newHeader(path, layout);
    watch.onBegin(wantedBytes, notices);
    await withFiles(async (files) => {
      const dataPath = dataFilePath(path, form);
      const dataFile = dataPath && new FileInTheMaking(dataPath, files.make(dataPath), watch);
      const file = new FileInTheMaking(path, files.make(path), watch);
      files.empty();
      if (dataFile) await fillRaw(dataFile, wholeBytes, form.preallocation === 'metadata' ? 'off' : form.preallocation);
      await writeNewQcow2(file, layout, header, () => files.sync());
    });
  } finally {
    opened?.close();
  }
}

async function withFiles(act: (files: NewFiles) => Promise<void>): Promise<void> {
  const files = new NewFiles();
  let areDone = false;
  try {
    await act(files);
    files.sync();
    areDone = true;
  } finally {
    files.end(areDone);
  }
}

function dataFilePath(imagePath: string, { dataFile }: NewQcow2): string | undefined {
  if (dataFile === undefined) return undefined;
  const { path } = partPath(imagePath, dataFile.name, 'data file');
  if (resolve(path) !== resolve(imagePath)) return path;
  throw new ImageError('unsupported', `${imagePath} cannot be its own data file`);
}

function openBehind(imagePath: string, form: ImageForm): Behind {
  if (form.format === 'raw' || form.backing === undefined) return { opened: undefined, notices: [] };
  const { name, format, isLookedAt } = form.backing;
  const { path, isOutside } = partPath(imagePath, name, 'backing file');
  if (resolve(path) === resolve(imagePath)) {
    throw new ImageError('unsupported', `${imagePath} cannot be its own backing file`);
  }
  const told = isOutside ? [`${imagePath} gets a backing file in another folder: ${path}`] : [];
  if (!isLookedAt) return { opened: undefined, notices: told };
  const opened = openImage(path, { format, readOnly: true, mayBeEmpty: true });
  return { opened, notices: [...told, ...opened.notices] };
}
