import { type Background, background, memoryDir, ok, run, until } from './guest.js';
import { tsnbd } from './programs.js';

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

/** Takes down what the functions above made; what they were for is detached. */
export async function dropStorage(): Promise<void> {
  await run('umount /tmp/storage-*/mnt; dmsetup remove_all; losetup -D; rm -rf /tmp/storage-*');
}

/** `tsnbd --nofork -c`: one start of Node, and SIGTERM detaches. `options` are the image's and it. */
export async function attached(options: string, device = 'nbd0'): Promise<Background> {
  const command = await background(`exec ${tsnbd} --nofork -f raw -c /dev/${device} ${options}`);
  const ended = `! kill -0 ${command.pid}`;
  await until(`${ended} || { test -e /run/tsnbd/${device}.json && test -e /sys/block/${device}/pid; }`, 120_000);
  return command;
}
