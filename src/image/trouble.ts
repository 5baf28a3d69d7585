import type { OpenedImage } from './open-image.js';
import { IS_CORRUPT } from './qcow2/memory.js';
import { SYNC_FAILED } from './shared-layout.js';

/**
 * Tells, on the thread that opened an image, what ends writing to it, a sentence each, as soon as a worker sees it. What has
 * to be done about it should not wait until somebody asks a client.
 */
export function tellOfTrouble(path: string, image: OpenedImage, tell: (text: string) => void): void {
  const { handle } = image;
  onLost(image, () =>
    tell(`${path} could not be brought to the disk: what was written may be lost, and nothing is written any more`),
  );
  if (handle.format !== 'qcow2') return;
  onMark(handle.memory.fields, IS_CORRUPT, () =>
    tell(`${path} has tables that contradict each other, and nothing is written any more; see: tsnbd check ${path}`),
  );
}

/** Calls `act` on the thread that opened an image, once a sync of it has failed: for as long as it is open no write is acknowledged. */
export function onLost({ handle }: OpenedImage, act: () => void): void {
  onMark(handle.shared, SYNC_FAILED, act);
}

/** When a field that was 0 is set by whoever notifies of it: it keeps no process from ending. */
function onMark(fields: Int32Array<SharedArrayBuffer>, field: number, act: () => void): void {
  const waiting = Atomics.waitAsync(fields, field, 0);
  if (waiting.async) void waiting.value.then(act);
  else act();
}
