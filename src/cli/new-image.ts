import type { ImageForm } from '../image/create-image.js';
import type { NewBacking, NewQcow2 } from '../image/qcow2/new-layout.js';
import { contradictionIn } from '../image/qcow2/new-rules.js';
import type { CreatableFormat, CreationSettings } from './creation-options.js';
import { UsageError } from './errors.js';

/** What `create` was told of a new image; absent is what was not said. */
export type NewImageSettings =
  | { readonly format: 'raw'; readonly settings: CreationSettings<'raw'> }
  | {
      readonly format: 'qcow2';
      readonly settings: CreationSettings<'qcow2'>;
      /** The backing file is not looked at. */
      readonly isUnsafe: boolean;
    };

const CLUSTER_BYTES = 65_536;
const REFCOUNT_BITS = 16;

/** In the order of qemu-img, which is that of names but for what the size stands behind. */
const LINES: Readonly<Record<CreatableFormat, readonly string[]>> = {
  raw: ['size', 'preallocation'],
  qcow2: [
    'cluster_size',
    'extended_l2',
    'preallocation',
    'compression_type',
    'size',
    'compat',
    'backing_file',
    'backing_fmt',
    'data_file',
    'data_file_raw',
    'lazy_refcounts',
    'refcount_bits',
  ],
};

/** What is told even where nobody said it. */
const DEFAULTS: Readonly<Record<CreatableFormat, object>> = {
  raw: {},
  qcow2: {
    cluster_size: CLUSTER_BYTES,
    extended_l2: 'off',
    compression_type: 'zlib',
    lazy_refcounts: 'off',
    refcount_bits: REFCOUNT_BITS,
  },
};

/** What qemu-img says before it makes an image, which scripts read. */
export function formattingLine(path: string, { format, settings }: NewImageSettings, sizeBytes: number): string {
  const told: Readonly<Record<string, unknown>> = { ...DEFAULTS[format], ...settings, size: sizeBytes };
  const words = LINES[format].filter((name) => told[name] !== undefined);
  const values = words.map((name) => ` ${name}=${String(told[name]).replaceAll(',', ',,')}`);
  return `Formatting '${path}', fmt=${format}${values.join('')}\n`;
}

/** @throws UsageError for what does not go together */
export function imageForm(image: NewImageSettings): ImageForm {
  if (image.format === 'raw') return { format: 'raw', preallocation: image.settings.preallocation ?? 'off' };
  const { settings, isUnsafe } = image;
  const version = settings.compat === '0.10' || settings.compat === 'v2' ? 2 : 3;
  const form: NewQcow2 = {
    format: 'qcow2',
    version,
    clusterBytes: settings.cluster_size ?? CLUSTER_BYTES,
    refcountBits: settings.refcount_bits ?? REFCOUNT_BITS,
    extendedL2: settings.extended_l2 === 'on',
    lazyRefcounts: settings.lazy_refcounts === 'on',
    compression: settings.compression_type ?? 'zlib',
    preallocation: settings.preallocation ?? 'off',
    dataFile: dataFileOf(settings),
    backing: backingOf(settings, isUnsafe),
  };
  const contradiction = contradictionIn(form);
  if (contradiction !== undefined) throw new UsageError(`option --options: ${contradiction}`);
  return form;
}

function dataFileOf({ data_file: name, data_file_raw: isRaw }: CreationSettings<'qcow2'>): NewQcow2['dataFile'] {
  if (name !== undefined) return { name, isRaw: isRaw === 'on' };
  if (isRaw !== 'on') return undefined;
  throw new UsageError('option --options: data_file_raw=on needs data_file');
}

/** A format that is guessed later could be the choice of the guest that writes to the backing file. */
function backingOf(
  { backing_file: name, backing_fmt: format }: CreationSettings<'qcow2'>,
  isUnsafe: boolean,
): NewBacking | undefined {
  if (name === undefined) {
    if (format === undefined && !isUnsafe) return undefined;
    throw new UsageError('options --backing-format and --backing-unsafe: they need --backing');
  }
  if (format !== undefined) return { name, format, isLookedAt: !isUnsafe };
  throw new UsageError(
    'option --backing: say what format the backing file has, -F raw or -F qcow2; "tsnbd info" tells what it looks like',
  );
}
