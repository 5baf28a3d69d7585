import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { detachDevice } from '../attach/detach.js';
import { AttachError } from '../attach/errors.js';
import { leaveToLastUser } from '../attach/last-user.js';
import { launchAttach } from '../attach/launch-attach.js';
import { messageOf } from '../base/message-of.js';
import { deviceState } from '../kernel/sysfs.js';
import { exitReasonOf, exitStatus } from './exit-status.js';
import { calledAs, tellNotice, tellSteps } from './run.js';
import type { RunAction } from './tsnbd-run-options.js';

/** As env(1) and shells have it. */
const CANNOT_BE_RUN = 126;
const NOT_FOUND = 127;
const SIGNALLED = 128;

/** Passed on to the command; the terminal sends the others to it too. */
const PASSED_ON = ['SIGTERM', 'SIGHUP'] as const;
const ALL_HEARD = [...PASSED_ON, 'SIGINT', 'SIGQUIT'] as const;

/** Attaches, runs a command, detaches. Answers the command's status, or that of a detach that failed behind a success. */
export async function runAttached(program: string, { request, command, verbosity }: RunAction): Promise<number> {
  const asked = new AbortController();
  let onSignal = (signal: NodeJS.Signals) => asked.abort(signal);
  for (const signal of ALL_HEARD) process.on(signal, (name) => onSignal(name));

  const tell = tellSteps(program, verbosity);
  let device: string | undefined;
  const attaching = launchAttach(
    request,
    (event) => {
      tell(event);
      if (event.kind === 'attached') device = event.device;
    },
    { stop: asked.signal },
  );
  try {
    await attaching;
  } catch (error) {
    if (asked.signal.aborted) return signalled(asked.signal.reason);
    throw error;
  }
  const attached = device;
  if (attached === undefined) throw new AttachError('system', 'the device was attached without a word about its name');

  const status = asked.signal.aborted
    ? signalled(asked.signal.reason)
    : await runCommand(program, command, `/dev/${attached}`, (passOn) => {
        onSignal = (signal) => {
          if ((PASSED_ON as readonly string[]).includes(signal)) passOn(signal);
        };
      });
  onSignal = () => {};
  try {
    await detachHoweverItEnds(attached, tellNotice(program)).catch((error: unknown) => {
      if (request.disconnectOnClose === undefined || exitReasonOf(error) !== 'busy') throw error;
      return leaveToLastUser(attached);
    });
  } catch (error) {
    tellNotice(program)(messageOf(error));
    return status === 0 ? exitStatus(exitReasonOf(error), calledAs()) : status;
  }
  return status;
}

/**
 * A server that is only slow is waited for; what one does not take that is gone is lost, and nobody is left to wait for it.
 *
 * @throws what detachDevice does; AttachError 'lost' when the device is detached
 */
async function detachHoweverItEnds(device: string, onNotice: (text: string) => void): Promise<void> {
  const { readOnly } = deviceState(device);
  const detach = () => detachDevice(device, false, onNotice);
  try {
    // By the second time it is known whether the server is silent.
    await detach().catch((error: unknown) => (exitReasonOf(error) === 'time-limit' ? detach() : Promise.reject(error)));
  } catch (error) {
    if (exitReasonOf(error) !== 'lost') throw error;
    await detachDevice(device, true, onNotice);
    if (readOnly) return;
    const why = 'its server is gone, or did not take all that was written';
    throw new AttachError('lost', `/dev/${device} was cut off: ${why}; what was not written yet is lost`);
  }
}

/** Answers its exit status in the words of a shell. `onStart` gets what sends it a signal. */
function runCommand(
  program: string,
  [name = '', ...words]: readonly string[],
  device: string,
  onStart: (passOn: (signal: NodeJS.Signals) => void) => void,
): Promise<number> {
  const child = spawn(name, words, { stdio: 'inherit', env: { ...process.env, TSNBD_DEVICE: device } });
  onStart((signal) => void child.kill(signal));
  return new Promise((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      const missing = error.code === 'ENOENT';
      tellNotice(program)(`cannot run ${name}: ${missing ? 'there is no such command' : error.message}`);
      resolve(missing ? NOT_FOUND : CANNOT_BE_RUN);
    });
    child.on('exit', (status, signal) => resolve(signal === null ? (status ?? 1) : signalled(signal)));
  });
}

function signalled(signal: NodeJS.Signals): number {
  return SIGNALLED + constants.signals[signal];
}
