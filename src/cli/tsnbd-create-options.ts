import type { ImageForm } from '../image/create-image.js';
import { CREATABLE_FORMATS, creationHelp, creationSettings, namesAndValues } from './creation-options.js';
import { UsageError } from './errors.js';
import { imageForm, type NewImageSettings } from './new-image.js';
import type { OptionTable, OptionValues, Program } from './option-table.js';
import { fileName, imageFormat, wordOf } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { sizeBytes } from './sizes.js';
import { helpOptions } from './telling-options.js';

export interface CreateAction {
  readonly kind: 'create';
  /** As it was typed. */
  readonly path: string;
  /** Absent: that of the backing file. */
  readonly sizeBytes: number | undefined;
  /** What was typed of the image, and what it comes to. */
  readonly image: NewImageSettings;
  readonly form: ImageForm;
  /** Tells nothing of what is done. */
  readonly quiet: boolean;
}

type Mode = 'create';
const MODES: readonly Mode[] = ['create'];

const options = {
  format: {
    short: 'f',
    value: '<FORMAT>',
    read: wordOf(CREATABLE_FORMATS, 'a format that images can be created in'),
    modes: MODES,
    help: `The format of the image: ${CREATABLE_FORMATS.join(' or ')}; raw unless given.`,
  },
  options: {
    short: 'o',
    value: '<NAME=VALUE>',
    read: namesAndValues,
    repeats: true,
    modes: MODES,
    help: `How the image is made; several behind commas, and may be given more than once. ${creationHelp()}`,
  },
  backing: {
    short: 'b',
    value: '<FILE>',
    read: fileName,
    modes: MODES,
    help: "What is not written to the image reads as FILE does, which must not change from then on. A relative name begins at the image's folder. Needs --backing-format; for qcow2.",
  },
  'backing-format': {
    short: 'F',
    value: '<FORMAT>',
    read: imageFormat,
    modes: MODES,
    help: 'The format of the backing file: raw or qcow2.',
  },
  'backing-unsafe': {
    short: 'u',
    modes: MODES,
    help: 'Do not look whether the backing file is there and can be opened; needs SIZE.',
  },
  quiet: {
    short: 'q',
    modes: MODES,
    help: 'Print nothing.',
  },
  ...helpOptions(MODES),
} satisfies OptionTable<Mode>;

export const tsnbdCreateProgram: Program<Mode, typeof options> = {
  name: 'tsnbd create',
  summary: 'make a new disk image',
  synopsis: [
    '[-f FORMAT] [-o NAME=VALUE,...] [-q] FILE SIZE',
    '-f qcow2 -b BACKING -F FORMAT [-u] [-o ...] FILE [SIZE]',
  ],
  description: [
    'SIZE is a number of bytes; k, M, G, T, P or E behind it stand for powers of 1024. It may be left out where there is a backing file, and is then that of the backing file. As with qemu-img, a FILE that is there already loses what it holds, unless another program has it in use. Only regular files are made. What is made is on stable storage when the command returns; what could not be made leaves no file behind.',
  ],
  modes: { create: { title: 'creating an image' } },
  defaultMode: 'create',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    {
      does: 'Make a qcow2 image of 10 GiB, which takes what is written to it',
      command: 'tsnbd create -f qcow2 disk.qcow2 10G',
    },
    {
      does: 'Make one that begins as another image',
      command: 'tsnbd create -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2',
    },
    { does: 'Make a raw image of 10 GiB that takes no storage yet', command: 'tsnbd create disk.raw 10G' },
    {
      does: 'Make one whose storage is reserved',
      command: 'tsnbd create -f raw -o preallocation=falloc disk.raw 10G',
    },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `create`. */
export function parseTsnbdCreate(argv: readonly string[]): CreateAction | Answer {
  return parse(tsnbdCreateProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => {
    const image = newImage(values);
    const form = imageForm(image);
    const path = operands.read('FILE', fileName);
    const hasBacking = form.format === 'qcow2' && form.backing?.isLookedAt === true;
    const isSizeGiven = operands.at(0) !== undefined || !hasBacking;
    const bytes = isSizeGiven ? operands.read('SIZE', sizeBytes) : undefined;
    operands.end();
    return { kind: 'create' as const, path, sizeBytes: bytes, image, form, quiet: values.quiet ?? false };
  });
}

function newImage(values: OptionValues<typeof options>): NewImageSettings {
  const given = (values.options ?? []).flat();
  const backing: [string, string][] = [];
  if (values.backing !== undefined) backing.push(['backing_file', values.backing]);
  if (values['backing-format'] !== undefined) backing.push(['backing_fmt', values['backing-format']]);
  const isUnsafe = values['backing-unsafe'] ?? false;
  if (values.format === 'qcow2') {
    return { format: 'qcow2', settings: creationSettings('qcow2', [...given, ...backing]), isUnsafe };
  }
  if (backing.length > 0 || isUnsafe) throw new UsageError('option --backing: raw images have no backing file');
  return { format: 'raw', settings: creationSettings('raw', given) };
}
