import { deviceState } from '../kernel/sysfs.js';
import type { PartitionChoice } from './attach-request.js';
import { AttachError } from './errors.js';
import { type FoundContent, probeFileSystems } from './probe.js';

/**
 * The name of the partition, 'nbd0p2', of a device that is up. Its node is there, for an attach waits for the nodes.
 *
 * @throws AttachError 'no-partition', which says what there is; 'ambiguous'
 */
export async function findPartition(device: string, choice: PartitionChoice): Promise<string> {
  const { partitions, maxPart } = deviceState(device);
  if (maxPart === 0) {
    throw new AttachError(
      'no-partition',
      'the nbd module was loaded without partitions (max_part=0); load it again with: modprobe -r nbd; modprobe nbd max_part=16',
    );
  }
  const [first, second] =
    choice.kind === 'number'
      ? partitions.filter((name) => name === `${device}p${choice.number}`)
      : await namedSo(partitions, choice);
  const wanted = choice.kind === 'number' ? `${choice.number}` : `with the ${choice.kind} ${choice.text}`;
  if (first === undefined) {
    throw new AttachError('no-partition', `there is no partition ${wanted}; ${whatIsThere(device, partitions)}`);
  }
  if (second !== undefined) {
    throw new AttachError('ambiguous', `more than one partition is there ${wanted}: ${first}, ${second}`);
  }
  return first;
}

/** 'it has the partitions 1, 2' */
export function whatIsThere(device: string, partitions: readonly string[]): string {
  const numbers = partitions.map((name) => name.slice(device.length + 1));
  return numbers.length === 0 ? 'it has no partitions' : `it has the partitions ${numbers.join(', ')}`;
}

async function namedSo(partitions: readonly string[], choice: PartitionChoice): Promise<readonly string[]> {
  const found = await probeFileSystems(partitions);
  return found.filter((content) => isChosen(content, '', choice)).map(({ device }) => device);
}

/** Whether a partition of `device` is the one that is meant. */
export function isChosen(content: FoundContent, device: string, choice: PartitionChoice): boolean {
  if (choice.kind === 'number') return content.device === `${device}p${choice.number}`;
  const { partitionLabel, label, partitionUuid, uuid } = content;
  if (choice.kind === 'label') return partitionLabel === choice.text || label === choice.text;
  const wanted = choice.text.toLowerCase();
  return [partitionUuid, uuid].some((each) => each?.toLowerCase() === wanted);
}
