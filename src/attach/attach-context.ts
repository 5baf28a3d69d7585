import type { UndoStack } from '../base/undo.js';
import type { OnAttachEvent } from './attach-event.js';

/** What every step of an attach may need besides its request. */
export interface AttachContext {
  readonly undo: UndoStack;
  readonly onEvent: OnAttachEvent;
  /** Aborted when the process is asked to end. */
  readonly stop: AbortSignal;
  /** Nobody waits for this very process: another may take its place. */
  readonly inBackground: boolean;
}
