import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { deviceState } from '../kernel/sysfs.js';
import type { PartitionChoice } from './attach-request.js';
import { AttachError } from './errors.js';
import { isChosen } from './find-partition.js';
import { probeFileSystems } from './probe.js';

const WAIT_LIMIT_MS = 10_000;
const LOOK_MS = 200;

/** Waits for a partition of a device, or, by label or UUID, for the device itself; answers its node. @throws AttachError 'time-limit' */
export async function waitForPartition(device: string, wanted: PartitionChoice): Promise<string> {
  for (const end = performance.now() + WAIT_LIMIT_MS; ; await sleep(LOOK_MS)) {
    for (const name of candidates(device, wanted)) {
      if (await isWanted(name, device, wanted)) return `/dev/${name}`;
    }
    if (performance.now() > end) {
      const what = wanted.kind === 'number' ? `partition ${wanted.number}` : `${wanted.kind} '${wanted.text}'`;
      throw new AttachError('time-limit', `waited ${WAIT_LIMIT_MS / 1_000} s in vain for ${what} on /dev/${device}`);
    }
  }
}

/** Whether there is a partition table that the module does not show; where nobody can tell, there is none. */
export async function hidesPartitions(device: string): Promise<boolean> {
  if (deviceState(device).maxPart > 0) return false;
  const [found] = await probeFileSystems([device]).catch(() => []);
  return found?.partitionTable !== undefined;
}

export const noPartitions =
  'no partitions will show: the nbd module was loaded without them (max_part=0); load it again with: modprobe -r nbd; modprobe nbd max_part=8';

function candidates(device: string, wanted: PartitionChoice): readonly string[] {
  const { partitions } = deviceState(device);
  const names =
    wanted.kind === 'number' ? partitions.filter((p) => p === `${device}p${wanted.number}`) : [device, ...partitions];
  return names.filter((name) => existsSync(`/dev/${name}`));
}

async function isWanted(name: string, device: string, wanted: PartitionChoice): Promise<boolean> {
  if (wanted.kind === 'number') return true;
  const [found] = await probeFileSystems([name]);
  return found !== undefined && isChosen(found, device, wanted);
}
