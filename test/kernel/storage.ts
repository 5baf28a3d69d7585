import { setTimeout as sleep } from 'node:timers/promises';
import { type Background, background, memoryDir, ok, run } from './guest.js';
import { tsnbdHere } from './programs.js';

/** A loop device on a new file in the guest's memory, or on one that is there. */
export async function loopDevice(size: string, file?: string): Promise<string> {
  const path = file ?? `${await memoryDir('storage')}/disk`;
  return ok(`modprobe loop && truncate -s ${size} ${path} && losetup -f --show ${path}`);
}

/** A device of the device mapper: `table` is what follows the length, which is that of `below`. The guest has no udev. */
export async function mappedDevice(name: string, below: string, table: string): Promise<string> {
  const module = `dm-${table.split(' ')[0]}`;
  await ok(`modprobe dm-mod; modprobe -q ${module}; dmsetup create ${name} --table "${await tableOf(below, table)}"`);
  await ok('dmsetup mknodes');
  return `/dev/mapper/${name}`;
}

/** Puts another table in the place of a device's, at once: nothing is written before. */
export async function swapTable(name: string, below: string, table: string): Promise<void> {
  const load = `dmsetup load ${name} --table "${await tableOf(below, table)}"`;
  await ok(`${load} && dmsetup suspend --nolockfs --noflush ${name} && dmsetup resume ${name}`);
}

async function tableOf(below: string, table: string): Promise<string> {
  return `0 ${await ok(`blockdev --getsz ${below}`)} ${table}`;
}

/** A mounted ext4 on a loop device: the file system that images usually lie on. */
export async function ext4Folder(size: string): Promise<string> {
  const dir = await memoryDir('storage');
  const disk = await loopDevice(size, `${dir}/disk`);
  await ok(`mkdir ${dir}/mnt && mkfs.ext4 -q ${disk} && mount ${disk} ${dir}/mnt`);
  return `${dir}/mnt`;
}

/** Takes down what the functions of this file made, and first what a test that failed has left on it. */
export async function dropStorage(): Promise<void> {
  const steps = [
    "grep -E '^/dev/(nbd|loop)' /proc/mounts | cut -d ' ' -f 2 | grep -v storage-.*/mnt | xargs -r umount -l",
    'for device in nbd0 nbd1; do test -e /sys/block/$device/pid && nbd-client -L -d /dev/$device; done',
    'pkill -KILL -f tsnbd.js; for try in $(seq 100); do pgrep -f tsnbd.js || break; sleep 0.1; done',
    'umount /tmp/storage-*/mnt; dmsetup remove_all; losetup -D; rm -rf /tmp/storage-*',
  ];
  await run(steps.join('\n'));
}

/** What `-v` tells of an attach that goes well. */
const STEPS =
  /^(tsnbd: ((open|start|connect|set|write|make|hide|hand over|look for|wait until) [a-z0-9 ]+)|NBD device .* is now connected to .*)\n/gm;

/**
 * `tsnbd --nofork -c`: one start of Node, and SIGTERM detaches. `options` are the image's and it. What the command says in
 * the end is what it would have said without -v.
 */
export async function attached(options: string, device = 'nbd0'): Promise<Background> {
  const command = await background(`exec ${tsnbdHere} -v -f raw -c /dev/${device} ${options}`);
  let ended = false;
  const result = command.result.then((end) => {
    ended = true;
    return { ...end, stderr: end.stderr.replaceAll(STEPS, '') };
  });
  result.catch(() => {});
  const end = performance.now() + 120_000;
  while (!command.output().stderr.includes('is now connected to')) {
    if (ended || performance.now() > end) throw new Error(`it was not attached: ${JSON.stringify(command.output())}`);
    await sleep(20);
  }
  return {
    ...command,
    result,
    stop: async (signal) => {
      await command.stop(signal);
      return result;
    },
  };
}
