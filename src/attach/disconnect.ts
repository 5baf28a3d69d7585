import { launch } from '../daemon/launch.js';

/** What disconnect-process.ts is to do. */
export interface DisconnectTask {
  readonly device: string;
  /** 'leftover' leaves a device alone that is none any more; 'flush' writes first what is still to be written, and must. */
  readonly how: 'leftover' | 'flush' | 'cut';
}

/**
 * Disconnects a device whose connections this process does not have: such a disconnect may hang for ever, so a process of
 * its own makes it.
 */
export function disconnectInProcess(task: DisconnectTask, limitMs: number): Promise<void> {
  return launch(new URL('./disconnect-process.js', import.meta.url), task, () => {}, { limitMs });
}
