import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { errnoText } from './errno.js';
import { KernelError } from './errors.js';
import { deviceState } from './sysfs.js';

// What has to open a device that is up. The process that serves the device must not: a thread of its own that waits for
// the device keeps it from being killed, for ever if the answer was to come from it (kernel-facts, "Around it"). So a
// short-lived child opens it; one that does not come back is left behind to wait alone.

/**
 * Makes the kernel read the partition table, which it does when a device is opened next; then sysfs has the partitions.
 *
 * @throws KernelError 'time-limit' when the server does not answer the kernel's reads, 'system'
 */
export async function rescanPartitions(name: string, limitMs: number): Promise<void> {
  const end = await runChild('/bin/sh', ['-c', 'exec 3<"$0"', `/dev/${name}`], limitMs);
  if (end === 'time-limit') {
    throw new KernelError(
      'time-limit',
      `the server did not answer in ${limitMs / 1000} s when the kernel read the partition table of /dev/${name}`,
    );
  }
  if (end.status !== 0) throw new KernelError('system', `cannot open /dev/${name}: ${end.text}`);
}

/** A device without a size has no partitions to read: it takes no time, unless another program has taken the device meanwhile. */
const dropLimitMs = 2_000;

/** Partitions of the last use stay in /dev until somebody opens a device that is down (seen). */
export async function dropPartitions(name: string): Promise<void> {
  const { pid, partitions } = deviceState(name);
  if (pid !== undefined || partitions.length === 0) return;
  await rescanPartitions(name, dropLimitMs).catch(() => {}); // the device is free all the same
}

/** How a flush ended: 'lost' is the kernel's word that writes did not arrive; 'unfinished' says nothing about them. */
export type FlushEnd =
  | { readonly kind: 'done' }
  | { readonly kind: 'lost'; readonly why: string }
  | { readonly kind: 'unfinished'; readonly why: string };

/**
 * Writes what the kernel still holds of the device and its partitions, each of which has pages of its own, to the server,
 * and has the server flush. The kernel tells of a lost write once.
 */
export async function flushDevice(name: string, limitMs: number): Promise<FlushEnd> {
  const paths = [name, ...deviceState(name).partitions]
    .map((device) => `/dev/${device}`)
    .filter((path) => existsSync(path));
  const end = await runChild('sync', ['--', ...paths], limitMs);
  if (end === 'time-limit') return { kind: 'unfinished', why: `no answer in ${limitMs / 1000} s` };
  if (end.status === 0) return { kind: 'done' };
  return end.status > 0 ? { kind: 'lost', why: end.text } : { kind: 'unfinished', why: end.text || 'sync was ended' };
}

export interface ChildEnd {
  /** −1 if it was killed or could not be started. */
  readonly status: number;
  /** The first line of what it said. */
  readonly text: string;
}

const textCharsMax = 500;

/** Runs a program that may wait for a device; one that is late is left behind. */
export function runChild(program: string, words: readonly string[], limitMs: number): Promise<ChildEnd | 'time-limit'> {
  // A session of its own: ^C is for the command, and must not end a flush.
  const child = spawn(program, words, { cwd: '/', detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.stderr?.destroy();
      child.unref(); // SIGKILL does not reach a process that waits for a device
      resolve('time-limit');
    }, limitMs);
    const settle = (end: ChildEnd): void => {
      clearTimeout(timer);
      resolve(end);
    };
    child.on('error', (error: NodeJS.ErrnoException) =>
      settle({ status: -1, text: `cannot run ${program}: ${errnoText(-(error.errno ?? 0))}` }),
    );
    // Without free descriptors there is no pipe, only the error.
    child.stderr?.setEncoding('utf8').on('data', (piece: string) => {
      text = (text + piece).slice(0, textCharsMax);
    });
    child.on('close', (status) => settle({ status: status ?? -1, text: text.split('\n')[0] ?? '' }));
  });
}
