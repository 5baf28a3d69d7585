import type { OnAttachEvent } from '../attach/attach-event.js';
import { stopOnSignals } from '../daemon/signals.js';
import { MOUNT_STATUSES, mountStatus } from './mount-status.js';
import type { MountAction } from './mount-tsnbd-options.js';
import { tellSteps } from './run.js';
import type { UmountAction } from './umount-tsnbd-options.js';

/** mount(8) takes PATH away, for root too. */
export const PROGRAMS_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The advice to name the format of an image, in the words of a line of fstab. */
export function inMountOptions(text: string): string {
  return text.replace(/\b(say|use) -f raw\b/, '$1 format=raw');
}

/** What a mount is asked for. Answers the exit status of mount(8). */
export async function mountAndTell(program: string, action: MountAction): Promise<number> {
  const { task, fake, remount, nofail, verbosity } = action;
  if (fake) return MOUNT_STATUSES.done.status;
  process.env.PATH = PROGRAMS_PATH;
  const tell = tellSteps(program, verbosity);
  const onEvent: OnAttachEvent = (event) =>
    tell(event.kind === 'notice' ? { ...event, text: inMountOptions(event.text) } : event);
  const context = { onEvent, stop: stopOnSignals() };
  try {
    if (remount) {
      const { remountSource } = await import('../mount/remount.js');
      await remountSource(task, context);
    } else {
      const { mountSource } = await import('../mount/mount.js');
      const end = await mountSource(task, context);
      if (end === 'there' && verbosity.verbose) process.stderr.write(`${program}: ${task.folder} is mounted already\n`);
    }
    return MOUNT_STATUSES.done.status;
  } catch (error) {
    if (nofail && (error as { code?: unknown }).code === 'unreachable') {
      process.stderr.write(`${program}: ${(error as Error).message}; passed over (nofail)\n`);
      return MOUNT_STATUSES.done.status;
    }
    return failure(program, error, verbosity.debug);
  }
}

/** What an unmount is asked for. Answers the exit status of umount(8). */
export async function unmountAndTell(program: string, { unmount, verbosity }: UmountAction): Promise<number> {
  process.env.PATH = PROGRAMS_PATH;
  try {
    const { unmountFolder } = await import('../mount/umount.js');
    await unmountFolder(unmount, tellSteps(program, verbosity));
    return MOUNT_STATUSES.done.status;
  } catch (error) {
    return failure(program, error, verbosity.debug);
  }
}

function failure(program: string, error: unknown, debug: boolean): number {
  process.stderr.write(`${program}: ${error instanceof Error ? inMountOptions(error.message) : error}\n`);
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return mountStatus(error);
}
