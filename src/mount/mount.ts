import { realpathSync, statSync } from 'node:fs';
import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest, PartitionChoice } from '../attach/attach-request.js';
import { detachUnused } from '../attach/detach-unused.js';
import { recordedDevices } from '../attach/devices.js';
import { findPartition, whatIsThere } from '../attach/find-partition.js';
import { probeFileSystems } from '../attach/probe.js';
import { messageOf } from '../base/message-of.js';
import { UndoStack } from '../base/undo.js';
import { mountAt, mountedDevice } from '../kernel/mount-table.js';
import { requireRoot } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { deviceState, isReadOnly, nbdPresence } from '../kernel/sysfs.js';
import { deviceOf } from './attach-source.js';
import { interrupted, MountError } from './errors.js';
import { checkBeforeMount, type FsckChoice } from './fsck.js';
import { LOCK_LIMIT_MS, type Locked, SOURCE_LOCK_LIMIT_MS, takeLock } from './locks.js';
import { complaint, loadNbdModule, mountFileSystem, setReadOnly, unmountFileSystem } from './programs.js';
import { releaseUnused } from './release-unused.js';
import { isOfSource, sourceName } from './source.js';

/** Where libmount mounts before it moves a subfolder to its place: what is mounted there by us would not stay. */
const SUBFOLDER_MOUNT = '/run/mount/tmptgt';

/** A detach after a mount that failed: nothing was mounted, so nothing is waited for. */
const UNDO_CLAIMED_LIMIT_MS = 10_000;
const UNDO_UNMOUNT_LIMIT_MS = 20_000;

/** What a line of fstab, or a command line, asks for. */
export interface MountTask {
  readonly request: AttachRequest;
  /** Absolute. */
  readonly folder: string;
  /** Absent: the whole disk. */
  readonly partition: PartitionChoice | undefined;
  readonly fsck: FsckChoice;
  /** Absent: what blkid finds. */
  readonly fileSystem: string | undefined;
  readonly readOnly: boolean;
  /** What is not ours: for the file system. */
  readonly options: readonly string[];
  /** It is not to be mounted before the network is there. */
  readonly isNetwork: boolean;
  readonly isSloppy: boolean;
  readonly namespace: string | undefined;
}

export interface MountContext {
  readonly onEvent: OnAttachEvent;
  /** Aborted when the command is asked to end: what was done is undone. */
  readonly stop: AbortSignal;
}

/** 'mounted' now, or 'there' already. */
export type MountEnd = 'mounted' | 'there';

/**
 * Mounts a source: attach, find the partition, check the file system, mount it. A step that fails undoes those before it.
 *
 * @throws MountError; and the errors of an attach
 */
export async function mountSource(task: MountTask, context: MountContext): Promise<MountEnd> {
  const { request, namespace } = task;
  requireRoot('mount a network block device, whatever a line of fstab says of users');
  const folder = mountPoint(task.folder, namespace);
  const unlock: (() => void)[] = [];
  try {
    unlock.push(await lock({ folder }, context.stop));
    if (await isThere(request, task.partition, folder, namespace)) return 'there';
    await requireModule();
    await releaseUnused(context.onEvent);
    unlock.push(await lock({ source: sourceName(request) }, context.stop));
    await mountLocked({ ...task, folder }, context);
    return 'mounted';
  } finally {
    for (const release of unlock.reverse()) release();
  }
}

async function mountLocked(task: MountTask, { onEvent, stop }: MountContext): Promise<void> {
  const { request, folder, partition } = task;
  const undo = new UndoStack((step) => {
    if (stop.aborted) throw interrupted();
    onEvent({ kind: 'step', step });
  });
  const notice = (text: string) => onEvent({ kind: 'notice', text });
  try {
    const { device } = await undo.step(
      'attach',
      () => deviceOf(request, folder, { onEvent, stop }),
      async ({ device: attached, isNew }) => {
        if (!isNew) return;
        await detachUnused(attached, { claimedLimitMs: UNDO_CLAIMED_LIMIT_MS, force: false, onNotice: notice });
      },
    );
    const name = await undo.step('find the partition', () =>
      partition === undefined ? device : findPartition(device, partition),
    );
    const fileSystem = await undo.step('look for the file system', () => fileSystemOn(device, name, task.fileSystem));
    const isMounted = deviceUsers(device).some((user) => user.device === name);
    const check = await undo.step('check the file system', () =>
      isMounted ? undefined : checkBeforeMount(task.fsck, fileSystem, `/dev/${name}`, task.readOnly, stop),
    );
    if (check === 'repaired') notice(`fsck.${fileSystem} found errors on /dev/${name}, and repaired them`);
    // Of a whole disk the kernel would remember it when the device is detached.
    if (!isMounted && name !== device) {
      await undo.step('set what may be written', () => protect(name, task.readOnly));
    }
    await undo.step('mount', () => mountInner(task, fileSystem, name, notice, stop));
  } catch (error) {
    for (const { step, cause } of await undo.undoAll()) {
      notice(`cannot undo '${step}': ${messageOf(cause)}`);
    }
    throw error;
  }
}

/** The folder as the table of mounts calls it. In another namespace nobody looks at it from here. */
function mountPoint(folder: string, namespace: string | undefined): string {
  if (folder === SUBFOLDER_MOUNT) {
    throw new MountError('usage', 'option X-mount.subdir: what is mounted with it would not stay mounted');
  }
  if (namespace !== undefined) return folder;
  try {
    const path = realpathSync(folder);
    if (statSync(path).isDirectory()) return path;
  } catch (cause) {
    throw new MountError('failed', `the mount point ${folder} does not exist`, cause);
  }
  throw new MountError('failed', `the mount point ${folder} is not a folder`);
}

async function lock(on: Locked, stop: AbortSignal): Promise<() => void> {
  const limitMs = 'folder' in on ? LOCK_LIMIT_MS : SOURCE_LOCK_LIMIT_MS;
  const release = await takeLock(on, limitMs, stop);
  if (release !== undefined) return release;
  const what = 'folder' in on ? on.folder : 'the same source';
  throw new MountError('failed', `another mount or unmount of ${what} has not ended for ${limitMs / 1000} s`);
}

/** Whether this very thing is what is mounted there: mount -a asks again for each line. */
async function isThere(
  request: AttachRequest,
  partition: PartitionChoice | undefined,
  folder: string,
  namespace: string | undefined,
): Promise<boolean> {
  const mount = mountAt(folder, namespace);
  const found = mount === undefined ? undefined : mountedDevice(mount);
  if (found === undefined) return false;
  const { device, node } = found;
  const record = recordedDevices().find((each) => each.device === device)?.record;
  if (record === undefined || !isOfSource(record, request)) return false;
  return node === (partition === undefined ? device : await findPartition(device, partition));
}

/** A module that is there stays as it is. */
async function requireModule(): Promise<void> {
  if (nbdPresence().loaded) return;
  await loadNbdModule(); // if that fails, the attach says what is missing
}

async function fileSystemOn(device: string, name: string, given: string | undefined): Promise<string> {
  if (given !== undefined) return given;
  const [found] = await probeFileSystems([name]);
  if (found?.type !== undefined) return found.type;
  const { partitions } = deviceState(device);
  const there =
    name === device && partitions.length > 0 ? `; ${whatIsThere(device, partitions)}: name one, partition=1` : '';
  throw new MountError('failed', `no file system is found on /dev/${name}${there}`);
}

async function protect(name: string, readOnly: boolean): Promise<void> {
  if (isReadOnly(name) === readOnly) return;
  const end = await setReadOnly(`/dev/${name}`, readOnly);
  // What is read-only as a whole stays so, and mount(8) says it.
  if (end.status !== 0 && readOnly)
    throw new MountError('failed', `cannot make /dev/${name} read-only: ${end.stderr.trim()}`);
}

/** mount(8) fails, too, where it has mounted and could not write that down: the table of mounts is the truth. */
async function mountInner(
  task: MountTask,
  fileSystem: string,
  name: string,
  notice: (text: string) => void,
  stop: AbortSignal,
): Promise<void> {
  const { folder, namespace, isSloppy } = task;
  const node = `/dev/${name}`;
  const end = await mountFileSystem(
    { fileSystem, options: innerOptions(task), node, folder, namespace, isSloppy },
    stop,
  );
  const mount = mountAt(folder, namespace);
  const isMounted = mount !== undefined && mountedDevice(mount)?.node === name;
  if (end.status === 0 && isMounted) {
    if (end.stderr !== '') notice(complaint(end, folder));
    return;
  }
  if (isMounted && stop.aborted) {
    // It was ended between mounting and writing that down. What cannot be unmounted any more is in use, and stays.
    const plain = { folder, namespace, lazy: false, force: false, readOnly: false };
    if ((await unmountFileSystem(plain, UNDO_UNMOUNT_LIMIT_MS)).status === 0) throw interrupted();
  }
  if (isMounted) {
    return notice(`${folder} is mounted, but that could not be written down: unmount it by: tsnbd umount ${folder}`);
  }
  if (stop.aborted) throw interrupted();
  throw new MountError('failed', `cannot mount ${node} on ${folder}: ${complaint(end, folder)}`);
}

/** What leads umount(8) back to us, and tells systemd that the network is to stay for it. */
export function innerOptions({ options, isNetwork }: Pick<MountTask, 'options' | 'isNetwork'>): readonly string[] {
  return [...options, 'helper=tsnbd', ...(isNetwork ? ['_netdev'] : [])];
}
