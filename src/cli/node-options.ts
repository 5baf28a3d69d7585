import type { OptionTable, OptionValues } from './option-table.js';
import { partitionChoice } from './option-values.js';

/** What is awaited, and kept off, when the device and its partitions appear, in every program that attaches. */
export function nodeOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    'wait-partition': {
      value: '<PARTITION>',
      read: partitionChoice,
      modes,
      help: 'Return when this partition is there, and print its node: a number, or label=LABEL or uuid=UUID of the file system in it (or on the whole device). It is waited for 10 seconds; if it does not come nothing stays attached.',
    },
    'allow-volumes': {
      modes,
      help: 'Let udev hand LVM and md volumes that are on the device to this machine. Without it a rule in /run/udev/rules.d keeps it from that: such a volume would hold the device.',
    },
  } satisfies OptionTable<Mode>;
}

export function nodeChoice(values: OptionValues<ReturnType<typeof nodeOptions>>) {
  return { waitPartition: values['wait-partition'], allowVolumes: values['allow-volumes'] };
}
