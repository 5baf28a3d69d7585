import { requireRoot } from '../kernel/nbd-device.js';
import { type DeviceUser, deviceUsers, type Holder, holderDevice, mountPoints } from '../kernel/proc.js';
import { firstLine, runProgram } from '../kernel/run-program.js';
import { deviceState, requireDevice } from '../kernel/sysfs.js';
import { AttachError } from './errors.js';

/** umount writes what is left to be written. */
const PROGRAM_LIMIT_MS = 120_000;
/** Of devices that stand on each other. */
const LEVELS_MAX = 16;

/**
 * Takes down what uses a device, leaves first: file systems, the newest mount first, and swap, on the device and on those above
 * it; then the devices above, topmost first. One that lies on others too is not ours alone, and stays. What was taken down
 * before a failure stays so; each step is told.
 *
 * @throws AttachError 'busy' with what could not be taken down
 */
export async function releaseDevice(device: string, onNotice: (text: string) => void): Promise<void> {
  requireDevice(device);
  requireRoot(`release /dev/${device}`);
  const stack = new Stack(device);
  const order = mountPoints();
  const newestFirst = stack.mounts.toSorted(
    (a, b) => order.lastIndexOf(b.mountPoint) - order.lastIndexOf(a.mountPoint),
  );
  for (const { device: on, mountPoint } of newestFirst) await run(on, ['umount', '--', mountPoint], onNotice);
  for (const { device: on } of stack.swaps) await run(on, ['swapoff', '--', `/dev/${on}`], onNotice);
  for (const { holder, user } of stack.holders) await run(user.device, endOf(holder, user.device), onNotice);
}

/** A device above another, as who holds that. */
interface Standing {
  readonly holder: Holder;
  readonly user: DeviceUser & { readonly kind: 'holder' };
}

/** What stands on a device. */
class Stack {
  readonly mounts: (DeviceUser & { readonly kind: 'mount' })[] = [];
  readonly swaps: DeviceUser[] = [];
  /** Each before what is below it. */
  readonly holders: Standing[] = [];
  /** The device, its partitions, and the devices above them. */
  readonly #ours: Set<string>;

  constructor(device: string) {
    this.#ours = new Set([device, ...deviceState(device).partitions]);
    this.#climb(device, LEVELS_MAX);
    // Only now: what one lies on, too, may be met after it, as the two below a snapshot of LVM.
    for (const each of this.holders) this.#refuseForeign(each);
  }

  #climb(device: string, levels: number): void {
    if (levels === 0) throw new AttachError('busy', `too many devices stand on each other above /dev/${device}`);
    for (const user of deviceUsers(device)) {
      if (user.kind === 'mount') this.mounts.push(user);
      else if (user.kind === 'swap') this.swaps.push(user);
      else this.#hold(user, levels);
    }
  }

  #hold(user: DeviceUser & { readonly kind: 'holder' }, levels: number): void {
    const holder = holderDevice(user);
    if (holder === undefined) {
      throw new AttachError('busy', `${user.holder} holds /dev/${user.device}, and is not to be taken down from here`);
    }
    if (this.#ours.has(holder.name)) return; // it was met on another device
    for (const name of [holder.name, ...deviceState(holder.name).partitions]) this.#ours.add(name);
    this.#climb(holder.name, levels - 1);
    this.holders.push({ holder, user });
  }

  #refuseForeign({ holder, user }: Standing): void {
    const foreign = holder.lower.find((lower) => !this.#ours.has(lower));
    if (foreign === undefined) return;
    throw new AttachError('busy', `${user.holder} holds /dev/${user.device}, and /dev/${foreign} too: it stays`);
  }
}

async function run(
  device: string,
  [program = '', ...words]: readonly string[],
  onNotice: (text: string) => void,
): Promise<void> {
  const said = [program, ...words.filter((word) => word !== '--')].join(' ');
  const end = await runProgram(program, words, { limitMs: PROGRAM_LIMIT_MS });
  if (end.isLate) throw new AttachError('time-limit', `${said} did not end in ${PROGRAM_LIMIT_MS / 1_000} s`);
  if (end.status !== 0)
    throw new AttachError('busy', `/dev/${device} is in use, and ${said} failed: ${firstLine(end.stderr)}`);
  onNotice(`/dev/${device}: ${said}`);
}

/** The command that takes a device above another down. */
function endOf({ name, mapperName }: Holder, on: string): readonly string[] {
  if (mapperName !== undefined) return ['dmsetup', 'remove', '--', mapperName];
  if (name.startsWith('md')) return ['mdadm', '--stop', `/dev/${name}`];
  if (name.startsWith('loop')) return ['losetup', '--detach', `/dev/${name}`];
  throw new AttachError('busy', `${name} holds /dev/${on}, and nobody knows here how to take it down`);
}
