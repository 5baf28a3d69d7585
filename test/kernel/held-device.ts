import { afterEach, beforeAll, expect } from 'vitest';
import { assertQuietKernel, type Background, background, markKernelLog, ok, run, until } from './guest.js';
import { testProgram } from './programs.js';

// Devices that device-program.js sets up in the guest, with servers of its own: what the tests of the kernel room share.

export const free = { sizeBytes: 0, pid: null, partitions: [] };

export type Said = Readonly<Record<string, unknown>>;

export type Api = 'ioctl' | 'netlink';

let mark = '';
let api: Api | 'auto' = 'auto';
/** What a test has started; ended behind it. */
export const holders: Background[] = [];

/** Called in a test file: every test of it leaves two devices free, and the kernel without complaint. */
export function guardDevices(): void {
  beforeAll(async () => {
    mark = await markKernelLog();
  });

  afterEach(async () => {
    for (const holder of holders.splice(0)) await holder.stop('KILL');
    try {
      await until('test "$(cat /sys/block/nbd[01]/size)" = "0\n0" && ! cat /sys/block/nbd[01]/pid');
    } catch (error) {
      // Killed, a process leaves in the kernel what it connected by netlink: the next test is to tell of its own faults.
      await run('nbd-client -d /dev/nbd0; nbd-client -d /dev/nbd1');
      throw error;
    }
    await assertQuietKernel(mark);
  });
}

/** Called in a group of tests: its devices are set up by this interface, unless a task names another. */
export function setUpBy(wanted: Api): void {
  beforeAll(() => {
    api = wanted;
    return () => {
      api = 'auto';
    };
  });
}

export function command(...tasks: readonly Said[]): string {
  return `node ${testProgram('device-program')} '${JSON.stringify(tasks.map((task) => ({ kernelApi: api, ...task })))}'`;
}

export function read(stdout: string): readonly Said[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Said)
    .filter((said) => !('begins' in said));
}

/** Runs the program to its end; its errors are ours. */
export async function say(task: Said): Promise<readonly Said[]> {
  return (await sayAll([task]))[0] ?? [];
}

/** Runs one program for many tasks, each in its turn: starting Node is what takes the time in the guest. */
export async function sayAll(tasks: readonly Said[]): Promise<readonly (readonly Said[])[]> {
  const { status, stdout, stderr } = await run(command(...tasks), { limitMs: 400_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const parts = stdout.split(/^\{"begins":.*$/m).slice(1);
  expect(parts).toHaveLength(tasks.length);
  return parts.map(read);
}

/** Starts the program in the background and waits until it has said something with this key. */
export async function hold(task: Said, key = 'up'): Promise<Background> {
  const holder = await background(`exec ${command({ hold: true, ...task })}`);
  holders.push(holder);
  await heard(holder, key);
  return holder;
}

export async function heard(holder: Background, key: string): Promise<unknown> {
  let found: Said | undefined;
  await expect
    .poll(
      () => {
        found = read(holder.output().stdout.replace(/[^\n]*$/, '')).find((said) => key in said);
        return found ?? holder.output().stderr;
      },
      { timeout: 60_000 },
    )
    .toHaveProperty(key);
  return found?.[key];
}

/** Tells the holder to disconnect, and gives all that it said. */
export async function release(holder: Background): Promise<readonly Said[]> {
  await ok(`kill -s USR2 ${holder.pid}`);
  const { stdout } = await holder.result;
  return read(stdout);
}

export function find(said: readonly Said[], key: string): unknown {
  return said.find((one) => key in one)?.[key];
}

/** Writes more than the sockets hold and than a stalled server takes. */
export async function fillSocket(): Promise<Background> {
  const writer = await background('exec dd if=/dev/zero of=/dev/nbd0 bs=1M count=8 conv=fsync');
  holders.push(writer);
  await until('test "$(awk \'{ print $2 }\' /sys/block/nbd0/inflight)" -ge 2');
  return writer;
}
