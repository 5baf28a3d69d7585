import { DirectCalls } from './direct-io.js';
import type { FileCalls } from './file-calls.js';
import type { Image } from './image.js';
import type { LayerHandle } from './qcow2/handle.js';
import { Qcow2Image } from './qcow2/qcow2.js';
import { RawImage } from './raw.js';

/** The image of a handle in its own format, and what is behind it. */
export function formatImage(handle: LayerHandle, calls: FileCalls): Image {
  const { direct } = handle;
  if (handle.format === 'raw') {
    return new RawImage(handle, direct === undefined ? calls : new DirectCalls({ ...handle, direct }, calls));
  }
  // The end of its file is nothing that a qcow2 image knows beforehand.
  const dataCalls = direct === undefined ? calls : new DirectCalls({ ...handle, direct, fileBytes: 0 }, calls);
  const backing = handle.backing === undefined ? undefined : formatImage(handle.backing, calls);
  return new Qcow2Image(handle, { calls, dataCalls, backing });
}
