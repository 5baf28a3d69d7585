import { close, existsSync, open } from 'node:fs';
import { openError } from './device-errors.js';
import { KernelError } from './errors.js';
import { firstLine, runProgram } from './run-program.js';
import { deviceState } from './sysfs.js';
import { within } from './within.js';

// What has to open a device that is up. The process that serves the device must not: a thread of its own that waits for
// the device keeps it from being killed, for ever if the answer was to come from it (kernel-facts, "Around it"). So a
// short-lived child opens it; one that does not come back is left behind to wait alone.

/**
 * Makes the kernel read the partition table, which it does when a device is opened next; then sysfs has the partitions.
 *
 * @throws KernelError 'time-limit' when the server does not answer the kernel's reads, 'system'
 */
export async function rescanPartitions(name: string, limitMs: number): Promise<void> {
  const end = await runProgram('/bin/sh', ['-c', 'exec 3<"$0"', `/dev/${name}`], { limitMs });
  if (end.isLate) throw lateError(name, limitMs);
  if (end.status !== 0) throw new KernelError('system', `cannot open /dev/${name}: ${firstLine(end.stderr)}`);
}

/**
 * The same in this process, for one that has no part in serving the device, and ends soon: a child takes ten times as long. An open that
 * is late ends with the connections of the device.
 *
 * @throws KernelError 'time-limit', and what openError tells
 */
export async function rescanPartitionsHere(name: string, limitMs: number): Promise<void> {
  const opened = new Promise<void>((resolve, reject) => {
    open(`/dev/${name}`, 'r', (error, fd) => {
      if (error === null) close(fd, () => resolve());
      else reject(openError(name, error));
    });
  });
  if ((await within(opened, limitMs)) === 'late') throw lateError(name, limitMs);
}

function lateError(name: string, limitMs: number): KernelError {
  return new KernelError(
    'time-limit',
    `the server did not answer in ${limitMs / 1000} s when the kernel read the partition table of /dev/${name}`,
  );
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
  const end = await runProgram('sync', ['--', ...paths], { limitMs });
  if (end.isLate) return { kind: 'unfinished', why: `no answer in ${limitMs / 1000} s` };
  if (end.status === 0) return { kind: 'done' };
  const why = firstLine(end.stderr);
  return end.status > 0 ? { kind: 'lost', why } : { kind: 'unfinished', why: why || 'sync was ended' };
}
