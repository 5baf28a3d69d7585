import { mountAt, mountedDevice } from '../kernel/mount-table.js';
import { requireRoot } from '../kernel/nbd-device.js';
import { isReadOnly } from '../kernel/sysfs.js';
import { MountError } from './errors.js';
import { innerOptions, type MountContext, type MountTask } from './mount.js';
import { complaint, mountFileSystem, setReadOnly } from './programs.js';

/** Changes the options of what is mounted, and nothing of how it is attached. @throws MountError */
export async function remountSource(task: MountTask, { onEvent, stop }: MountContext): Promise<void> {
  requireRoot('mount a network block device');
  const { folder, namespace, readOnly, isSloppy } = task;
  const mount = mountAt(folder, namespace);
  const found = mount === undefined ? undefined : mountedDevice(mount);
  if (mount === undefined || found === undefined) {
    throw new MountError('failed', `no network block device is mounted on ${folder}`);
  }
  const node = `/dev/${found.node}`;
  onEvent({ kind: 'step', step: 'mount again' });
  if (!readOnly && isReadOnly(found.node)) await setReadOnly(node, false);
  // The device is named, too: else mount(8) would take our options out of fstab.
  const options = ['remount', ...innerOptions(task)];
  const { fileSystem } = mount;
  const end = await mountFileSystem({ fileSystem, options, node, folder, namespace, isSloppy }, stop);
  if (end.status !== 0) throw new MountError('failed', `cannot mount ${folder} again: ${complaint(end, folder)}`);
}
