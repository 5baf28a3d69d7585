import { join } from 'node:path';
import { type Background, background, memoryDir, ok, type RunOptions, run, until } from './guest.js';
import { ROOT, TEST_PROGRAMS } from './test-programs.js';

export { ROOT };
/** The shipped programs, as the guest calls them. */
export const tsnbd = join(ROOT, 'dist/tsnbd.js');
export const tsnbdClient = join(ROOT, 'dist/tsnbd-client.js');
/** Sets PR_SET_IO_FLUSHER, by its numbers on x86-64, and becomes the program that follows. */
export const AS_IO_FLUSHER = "perl -e 'syscall(157, 57, 1, 0, 0, 0); exec @ARGV'";
/** The programs in the foreground, by one start of Node: started so, they need not start themselves again. */
export const tsnbdHere = `${AS_IO_FLUSHER} node ${tsnbd} --nofork`;
export const tsnbdClientHere = `${AS_IO_FLUSHER} node ${tsnbdClient} -nofork`;

/** A program of the tests, for the guest. */
export const testProgram = (name: string) => join(TEST_PROGRAMS, `${name}.js`);

/** A raw image of `size` (as truncate takes it) in the guest's memory. */
export async function newImage(size: string): Promise<string> {
  const image = `${await memoryDir('image')}/disk.raw`;
  await ok(`truncate -s ${size} ${image}`);
  return image;
}

/** By what the shell does itself: a program takes some 10 ms to start. */
const isFree = (device: string) =>
  `! test -e /sys/block/${device}/pid && read -r sectors </sys/block/${device}/size && test "$sectors" = 0`;
const NO_PROCESS = '! grep -aEs "([a]ttach|[d]isconnect)-process.js" /proc/[0-9]*/cmdline';
const NO_RUN_FILES = '! ls -A /run/tsnbd 2>/dev/null | grep .';

/** Fails unless the device is free and no process, control socket or state file of ours is left; then makes it so. */
export async function expectNothingLeft(device = 'nbd0'): Promise<void> {
  try {
    await until(`${NO_PROCESS} && ${isFree(device)} && ${NO_RUN_FILES}`);
  } catch (error) {
    // The next test is to tell of its own faults only.
    await run(
      `umount -l /dev/${device}*; swapoff -a; losetup -D; ${tsnbd} -d --force ${device}; pkill -KILL -f process.js`,
    );
    await run(`sleep 1; nbd-client -L -d /dev/${device}; rm -rf /run/tsnbd/*`);
    throw error;
  }
}

export const expectFree = (device = 'nbd0'): Promise<void> => until(isFree(device));

/** The process that answers for a device, by its state file. */
export const pidBehind = (device: string) => ok(`sed -E 's/^\\{"pid":([0-9]+).*/\\1/' /run/tsnbd/${device}.json`);

/** Two GPT partitions; as many as a test of partitions needs. */
export const TWO_PARTITIONS = "printf 'label: gpt\\nsize=40M\\ntype=linux\\n'";

/** Starts a server in the guest and waits until `ready` (a command line of sh) holds. */
export async function startServer(command: string, ready: string, options: RunOptions = {}): Promise<Background> {
  const server = await background(`exec ${command}`, options);
  await until(ready);
  return server;
}

export const listensOn = (port: number) =>
  `grep -qi ':${port.toString(16).padStart(4, '0')} .* 0A ' /proc/net/tcp /proc/net/tcp6`;
export const isSocket = (path: string) => `test -S ${path}`;
