import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../base/message-of.js';
import { UndoStack } from '../base/undo.js';
import { loadLibc } from '../kernel/libc.js';
import type { AttachContext } from './attach-context.js';
import type { OnAttachEvent } from './attach-event.js';
import type { AttachRequest } from './attach-request.js';
import type { Attachment, AttachmentEnd } from './attachment.js';
import { AttachError } from './errors.js';
import { endureShortMemory } from './serving-process.js';

/** How often a process that was asked to stop looks whether its device is still used. */
const IN_USE_POLL_MS = 500;

export interface HoldOptions {
  readonly onEvent: OnAttachEvent;
  /** Aborted when the process is asked to end: an attach is undone, a device that is up is detached once nothing uses it. */
  readonly stop: AbortSignal;
  readonly inBackground?: boolean;
  /** Told the name of each step before it is done; what it throws fails that step. */
  readonly beforeStep?: (step: string) => void;
  /** The device is usable; the process now holds it. */
  readonly onAttached?: (attachment: Attachment) => void | Promise<void>;
}

/**
 * The whole life of an attached device in the process that answers for it: `begin` makes it ours, or does not, which is no
 * failure; hold until it ends, leave nothing behind. Answers how it ended; throws what kept it from being attached.
 */
export async function hold(
  request: AttachRequest,
  begin: (context: AttachContext) => Promise<Attachment | undefined>,
  options: HoldOptions,
): Promise<AttachmentEnd> {
  const { onEvent, stop, inBackground = false } = options;
  const undo = new UndoStack((step) => {
    if (stop.aborted) throw interrupted();
    onEvent({ kind: 'step', step });
    options.beforeStep?.(step);
  });
  try {
    loadLibc();
    const danger = endureShortMemory(request);
    const attachment = await begin({ undo, onEvent, stop, inBackground });
    if (attachment === undefined) return 'left';
    if (danger !== undefined && !attachment.isLeft) onEvent({ kind: 'notice', text: danger });
    await options.onAttached?.(attachment);
    if (attachment.isLeft) {
      undo.keep();
      return 'left';
    }
    const ended = attachment.ended;
    await Promise.race([ended, detachOnceUnused(attachment, stop, onEvent)]);
    const end = await ended;
    const failed = attachment.writeErrors?.() ?? 0;
    if (end === 'handed over') undo.keep();
    else if (failed > 0) onEvent({ kind: 'notice', text: failedWrites(failed, attachment.device) });
    return end;
  } finally {
    for (const { step, cause } of await undo.undoAll()) {
      onEvent({ kind: 'notice', text: `cannot undo '${step}': ${messageOf(cause)}` });
    }
  }
}

/** An attach that is told to stop fails with that, whatever else then fails. */
export async function unlessStopped(
  attach: (context: AttachContext) => Promise<Attachment>,
  context: AttachContext,
): Promise<Attachment> {
  try {
    return await attach(context);
  } catch (error) {
    throw context.stop.aborted ? interrupted() : error;
  }
}

/** Cutting a device under a mounted file system loses its writes, so a process that is asked to end waits with it. */
async function detachOnceUnused(attachment: Attachment, stop: AbortSignal, onEvent: OnAttachEvent): Promise<void> {
  if (!stop.aborted) await new Promise((resolve) => stop.addEventListener('abort', resolve, { once: true }));
  let told = '';
  for (;;) {
    try {
      return await attachment.detach(false);
    } catch (error) {
      const text = messageOf(error);
      if (text !== told) onEvent({ kind: 'notice', text });
      told = text;
      // What is lost is lost: staying would not bring it back. All else may pass.
      if (error instanceof AttachError && error.code === 'lost') return attachment.detach(true);
    }
    await sleep(IN_USE_POLL_MS, undefined, { ref: false });
  }
}

/** For who has asked this process to end. Who has had it detach the device is told by detach.ts. */
function failedWrites(count: number, device: string): string {
  return `${count} writes to /dev/${device} failed while it was attached`;
}

function interrupted(): AttachError {
  return new AttachError('interrupted', 'interrupted; nothing stays attached');
}
