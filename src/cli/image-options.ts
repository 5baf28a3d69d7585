import type { ImageSettings } from '../attach/attach-request.js';
import { UsageError } from './errors.js';
import type { OptionTable, OptionValues } from './option-table.js';
import { cacheMode, detectZeroes, discardMode, imageFormat, partitionNumber, snapshotChoice } from './option-values.js';
import { sizeBytes } from './sizes.js';

const SECTOR_BYTES = 512;

/** qemu-nbd's options for how an image is opened. */
export function imageOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    format: {
      short: 'f',
      value: '<FORMAT>',
      read: imageFormat,
      modes,
      help: 'The format of an image: raw or qcow2. Without it, an image that does not look like another format is taken for raw, and a guest cannot make it look so.',
    },
    'read-only': {
      short: 'r',
      modes,
      help: 'Refuse every write; an image is opened for reading only.',
    },
    snapshot: {
      short: 's',
      modes,
      help: 'Write to a temporary file in $TMPDIR, or else in /var/tmp: the image is only read, and all that was written is gone at the end, whatever ends it.',
    },
    'load-snapshot': {
      short: 'l',
      value: '<SNAPSHOT>',
      read: snapshotChoice,
      modes,
      help: 'Show the disk as it was when an internal snapshot of a qcow2 image was taken, for reading only unless --snapshot is given. SNAPSHOT is its id or its name, or snapshot.id=ID,snapshot.name=NAME (one or both).',
    },
    'force-share': {
      short: 'U',
      modes,
      help: 'Open the image although another program writes to it; needs --read-only. What is read may not fit together.',
    },
    offset: {
      short: 'o',
      value: '<BYTES>',
      read: wholeSectors,
      modes,
      help: 'Show the disk from this offset on, a multiple of 512 bytes; k, M, G, T or P may stand behind it.',
    },
    partition: {
      value: '<N>',
      read: partitionNumber,
      modes,
      help: 'Show a partition of the disk alone, by its number in the GPT or MBR as Linux counts it.',
    },
    cache: {
      value: '<MODE>',
      read: cacheMode,
      modes,
      help: 'What a write that is answered has reached: the memory of this machine, until a flush (writeback, the default); stable storage (writethrough); the device, past the memory of this machine, until a flush (none) or at once (directsync). With unsafe a flush does nothing: a crash may cost all that was written.',
    },
    nocache: {
      short: 'n',
      modes,
      help: 'The same as --cache=none.',
    },
    discard: {
      value: '<MODE>',
      read: discardMode,
      modes,
      help: 'What becomes of storage that is trimmed: unmap or on gives it back (the default here; qemu-nbd has ignore), ignore or off keeps it.',
    },
    'detect-zeroes': {
      value: '<MODE>',
      read: detectZeroes,
      modes,
      help: 'Look whether writes are all zeroes: off (the default), on to zero the range in a cheaper way, unmap to give its storage back, which needs --discard=unmap.',
    },
  } satisfies OptionTable<Mode>;
}

export function imageSettingsOf(values: OptionValues<ReturnType<typeof imageOptions>>): ImageSettings {
  if (values.nocache !== undefined && values.cache !== undefined) {
    throw new UsageError('options --cache and --nocache: only one of them at a time');
  }
  if (values['detect-zeroes'] === 'unmap' && values.discard === 'ignore') {
    throw new UsageError('option --detect-zeroes: unmap needs --discard=unmap');
  }
  const temporary = values.snapshot ?? false;
  if (temporary && values['read-only'] === true) {
    throw new UsageError('option --snapshot: it has no effect with --read-only');
  }
  const readOnly = values['read-only'] ?? (values['load-snapshot'] !== undefined && !temporary);
  if (values['force-share'] === true && !readOnly) {
    throw new UsageError('option --force-share: it needs --read-only');
  }
  return {
    format: values.format,
    readOnly,
    snapshot: values['load-snapshot'],
    temporary,
    forceShare: values['force-share'] ?? false,
    cache: values.nocache === undefined ? values.cache : 'none',
    discard: values.discard,
    detectZeroes: values['detect-zeroes'],
    ...partOf(values),
  };
}

function partOf({
  offset,
  partition,
}: {
  readonly offset?: number;
  readonly partition?: number;
}): Partial<ImageSettings> {
  if (offset !== undefined && partition !== undefined) {
    throw new UsageError('options --offset and --partition: only one of them at a time');
  }
  if (partition !== undefined) return { part: { kind: 'partition', number: partition } };
  return offset === undefined ? {} : { part: { kind: 'offset', offsetBytes: offset } };
}

function wholeSectors(text: string): number {
  const bytes = sizeBytes(text);
  if (bytes % SECTOR_BYTES === 0) return bytes;
  throw new UsageError(`'${text}' is no multiple of ${SECTOR_BYTES} bytes`);
}
