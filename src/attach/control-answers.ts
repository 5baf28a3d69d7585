import type { ControlAnswer } from '../daemon/control.js';
import type { Attachment } from './attachment.js';
import type { AttachError } from './errors.js';
import type { NewSize } from './resize.js';

/** What the process behind a device has to answer with. */
export interface ControlContext {
  /** What it wrote into the state file. */
  readonly about: Readonly<Record<string, unknown>>;
  readonly writeErrors: (() => number) | undefined;
  readonly resizeIt: (wanted: NewSize) => Promise<number>;
}

/** Does what is asked on the control socket: status, detach, resize. */
export async function answerControl(
  attachment: Attachment,
  { about, writeErrors, resizeIt }: ControlContext,
  question: unknown,
): Promise<ControlAnswer> {
  const { command, force, sizeBytes } = (question ?? {}) as Readonly<Record<string, unknown>>;
  if (command === 'status')
    return {
      ok: true,
      device: attachment.device,
      pid: process.pid,
      about,
      link: attachment.link(),
      writeErrors: writeErrors?.(),
    };
  if (command !== 'detach' && command !== 'resize') {
    return { ok: false, code: 'refused', message: `no such command: ${String(command)}` };
  }
  try {
    if (command === 'resize') {
      const wanted = Number.isSafeInteger(sizeBytes) ? Number(sizeBytes) : undefined;
      return { ok: true, sizeBytes: await resizeIt({ sizeBytes: wanted, force: force === true }) };
    }
    await attachment.detach(force === true);
    return { ok: true, writeErrors: writeErrors?.() };
  } catch (error) {
    const { code, message } = error as AttachError;
    return { ok: false, code, message };
  }
}
