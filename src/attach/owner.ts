import { askControl, type ControlAnswer } from '../daemon/control.js';
import { readState } from '../daemon/state-file.js';

/**
 * Asks the process that answers for a device. One that ends because another takes its place (restart) is no answer: then
 * that one is asked.
 *
 * @throws DaemonError
 */
export async function askOwner(device: string, question: unknown, limitMs: number): Promise<ControlAnswer> {
  for (;;) {
    const pid = readState(device)?.pid;
    try {
      return await askControl(device, question, limitMs);
    } catch (error) {
      const now = readState(device)?.pid;
      if (now === undefined || now === pid) throw error;
    }
  }
}
