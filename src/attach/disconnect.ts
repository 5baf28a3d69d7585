import { launch } from '../daemon/launch.js';
import type { Leftover } from '../kernel/nbd-device.js';

/** What disconnect-process.ts is to do. */
export type DisconnectTask =
  /** It leaves a device alone that is none any more. */
  | { readonly device: string; readonly how: 'leftover'; readonly leftover: Leftover }
  /** 'flush' writes first what is still to be written, and must. */
  | { readonly device: string; readonly how: 'flush' | 'cut' }
  /** Only opens it with O_EXCL; fails with 'busy' where that cannot be. */
  | { readonly device: string; readonly how: 'claim' };

/**
 * Disconnects a device whose connections this process does not have: such a disconnect may hang for ever, so a process of
 * its own makes it.
 */
export async function disconnectInProcess(task: DisconnectTask, limitMs: number): Promise<void> {
  await launch(new URL('./disconnect-process.js', import.meta.url), task, () => {}, { limitMs });
}
