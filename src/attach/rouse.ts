import { DaemonError } from '../daemon/errors.js';
import { readState } from '../daemon/state-file.js';
import { isStoppedProcess } from '../kernel/proc.js';
import { waitFor } from '../kernel/sysfs.js';
import { AttachError } from './errors.js';
import { askOwner } from './owner.js';

/** A process that has no answer by then to what it is has stuck, however busy the machine is. */
const ANSWER_LIMIT_MS = 15_000;
/** What is left of a killed process waits for a disk or a server that does not answer. */
const END_LIMIT_MS = 10_000;

/**
 * Before the process behind a device is asked to detach it: one that was stopped (SIGSTOP) goes on, one that does not answer is
 * killed, by force; else the user is told how.
 *
 * @throws AttachError 'time-limit'
 */
export async function rouseOwner(device: string, force: boolean, onNotice: (text: string) => void): Promise<void> {
  const pid = readState(device)?.pid;
  if (pid === undefined) return;
  const owner = `process ${pid}, which serves /dev/${device},`;
  if (isStoppedProcess(pid)) {
    if (!force) {
      throw new AttachError('time-limit', `${owner} is stopped; kill -CONT ${pid} lets it go on, and so does --force`);
    }
    process.kill(pid, 'SIGCONT');
    onNotice(`${owner} was stopped, and goes on`);
  }
  if (!force || (await isAnswering(device))) return;
  process.kill(pid, 'SIGKILL');
  onNotice(`${owner} did not answer in ${ANSWER_LIMIT_MS / 1_000} s, and was killed`);
  await waitFor(`process ${pid} to end`, END_LIMIT_MS, () => readState(device)?.pid !== pid).catch(() => {
    const waits = 'it waits in the kernel for a disk or a server';
    throw new AttachError('time-limit', `${owner} was killed and does not end: ${waits}; try again when that answers`);
  });
}

/** One that ends meanwhile needs no killing. */
async function isAnswering(device: string): Promise<boolean> {
  try {
    await askOwner(device, { command: 'status' }, ANSWER_LIMIT_MS);
    return true;
  } catch (error) {
    return !(error instanceof DaemonError && error.code === 'time-limit');
  }
}

/** What became of asking it to detach the device, where that took too long; any other failure stays. */
export function explainSilence(device: string, error: unknown): unknown {
  const pid = readState(device)?.pid;
  if (pid === undefined || !(error instanceof DaemonError && error.code === 'time-limit')) return error;
  const how = `kill -KILL ${pid}, then tsnbd -d --force ${device}, frees it; what was not written yet is lost`;
  return new AttachError('time-limit', `${error.message}; ${how}`, error);
}
