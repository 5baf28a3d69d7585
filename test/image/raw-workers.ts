import { closeSync, openSync, writeFileSync } from 'node:fs';
import { afterEach } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { type RawHandle, RawImage } from '#tsnbd/image/raw.js';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';
import { useTemporaryFolder } from './temporary-folder.js';

export interface RawWorkers {
  readonly path: string;
  /** The opener's. */
  readonly fd: number;
  readonly handle: RawHandle;
  readonly images: readonly RawImage[];
  /** The first of them. */
  readonly image: RawImage;
  readonly second: RawImage;
}

/** Makes workers of one opening of a file full of 0x55, each with calls of its own, in a folder for each test. */
export function useRawWorkers(): (fileBytes: number, ...calls: Partial<FileCalls>[]) => RawWorkers {
  const inFolder = useTemporaryFolder();
  const undo: (() => void)[] = [];
  afterEach(() => {
    for (const step of undo.splice(0)) step();
  });
  return (fileBytes, ...calls) => {
    const path = inFolder('disk.raw');
    writeFileSync(path, Buffer.alloc(fileBytes, 0x55));
    const fd = openSync(path, 'r+');
    const sizeBytes = Math.ceil(fileBytes / 512) * 512;
    const handle: RawHandle = { format: 'raw', fd, fileBytes, sizeBytes, readOnly: false, shared: newSharedFields() };
    const images = calls.map((own) => new RawImage(handle, { ...fileCalls, ...own }));
    undo.push(() => {
      for (const image of images) image.close();
      closeSync(fd);
    });
    const [image = new RawImage(handle), second = image] = images;
    return { path, fd, handle, images, image, second };
  };
}
