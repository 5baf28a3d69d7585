import type { Said } from '../daemon/control.js';
import type { DeviceAttachment } from './device-attachment.js';
import type { AttachError } from './errors.js';
import type { Program } from './succession.js';

/** What a device's process answers on its control socket. */
export async function answerControl(attachment: DeviceAttachment, question: unknown): Promise<Said> {
  const { device, about, writeErrors } = attachment;
  const { command, force, sizeBytes, program } = (question ?? {}) as Readonly<Record<string, unknown>>;
  try {
    switch (command) {
      case 'status': {
        const link = attachment.link();
        return { answer: { ok: true, device, pid: process.pid, about, link, writeErrors: writeErrors?.() } };
      }
      case 'detach':
        await attachment.detach(force === true);
        return { answer: { ok: true, writeErrors: writeErrors?.() } };
      case 'leave to last user':
        await attachment.leaveToLastUser();
        return { answer: { ok: true } };
      case 'resize': {
        const wanted = Number.isSafeInteger(sizeBytes) ? Number(sizeBytes) : undefined;
        const resized = await attachment.resize({ sizeBytes: wanted, force: force === true });
        return { answer: { ok: true, sizeBytes: resized } };
      }
      case 'restart': {
        const pid = await attachment.handOver(program as Program);
        return { answer: { ok: true, pid }, afterwards: () => attachment.left() };
      }
      default:
        return { answer: { ok: false, code: 'refused', message: `no such command: ${String(command)}` } };
    }
  } catch (error) {
    const { code, message } = error as AttachError;
    return { answer: { ok: false, code, message } };
  }
}
