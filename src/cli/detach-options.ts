import { UsageError } from './errors.js';
import type { OptionTable, OptionValues } from './option-table.js';
import { tellNotice } from './run.js';

export interface DetachAction {
  readonly kind: 'detach';
  readonly device: string;
  readonly force: boolean;
  /** What uses the device is taken down first. */
  readonly release: boolean;
}

/** How a device is detached, in every program that detaches. */
export function detachOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    release: {
      modes,
      help: 'First take down what uses the device, the topmost first: unmount file systems, end swap, and remove the devices above it (LVM, device mapper, md, loop) that lie on it alone. Each step is told; what cannot be taken down stays, and so does the device.',
    },
    force: {
      modes,
      help: 'Detach even a device that is in use; what was not written yet is lost, but first written for a minute at most, as long as the server takes some of it every 10 seconds. A process behind it that was stopped goes on for that, and one that does not answer is killed.',
    },
  } satisfies OptionTable<Mode>;
}

export function detachAction(device: string, values: OptionValues<ReturnType<typeof detachOptions>>): DetachAction {
  if (values.force && values.release) {
    throw new UsageError('options --force and --release: only one of them at a time');
  }
  return { kind: 'detach', device, force: values.force ?? false, release: values.release ?? false };
}

export async function detach(program: string, { device, force, release }: DetachAction): Promise<void> {
  const { detachDevice } = await import('../attach/detach.js');
  if (release) {
    const { releaseDevice } = await import('../attach/release.js');
    await releaseDevice(device, tellNotice(program));
  }
  const { isUncounted } = await detachDevice(device, force, tellNotice(program));
  if (isUncounted) tellNotice(program)(`nobody counted writes that failed: /dev/${device} was a remote device`);
}
