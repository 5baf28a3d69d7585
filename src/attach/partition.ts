import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { runChild } from '../kernel/device-child.js';
import { deviceState } from '../kernel/sysfs.js';
import type { PartitionChoice } from './attach-request.js';
import { AttachError } from './errors.js';

const WAIT_LIMIT_MS = 10_000;
const LOOK_MS = 200;
/** blkid reads a little of a file system. */
const PROBE_LIMIT_MS = 10_000;

/** Waits for a partition of a device, or, by label or UUID, for the device itself; answers its node. @throws AttachError 'time-limit' */
export async function waitForPartition(device: string, wanted: PartitionChoice): Promise<string> {
  for (const end = performance.now() + WAIT_LIMIT_MS; ; await sleep(LOOK_MS)) {
    for (const name of await candidates(device, wanted)) {
      if (await isWanted(name, wanted)) return `/dev/${name}`;
    }
    if (performance.now() > end) {
      const what = wanted.kind === 'number' ? `partition ${wanted.number}` : `${wanted.kind} '${wanted.text}'`;
      throw new AttachError('time-limit', `waited ${WAIT_LIMIT_MS / 1_000} s in vain for ${what} on /dev/${device}`);
    }
  }
}

async function candidates(device: string, wanted: PartitionChoice): Promise<readonly string[]> {
  const { partitions } = deviceState(device);
  const names =
    wanted.kind === 'number' ? partitions.filter((p) => p === `${device}p${wanted.number}`) : [device, ...partitions];
  return names.filter((name) => existsSync(`/dev/${name}`));
}

/** blkid(8) without its cache ends with 0 only if the device has it. */
async function isWanted(name: string, wanted: PartitionChoice): Promise<boolean> {
  if (wanted.kind === 'number') return true;
  const token = `${wanted.kind.toUpperCase()}=${wanted.text}`;
  const end = await runChild('blkid', ['-c', '/dev/null', '-t', token, '--', `/dev/${name}`], PROBE_LIMIT_MS);
  if (end === 'time-limit')
    throw new AttachError('time-limit', `blkid did not end on /dev/${name}: the server does not answer`);
  if (end.status < 0) throw new AttachError('system', end.text);
  return end.status === 0;
}
