import {
  CREATABLE_FORMATS,
  type CreatableFormat,
  type CreationSettings,
  creationHelp,
  creationSettings,
  namesAndValues,
} from './creation-options.js';
import type { OptionTable, Program } from './option-table.js';
import { fileName, oneOf } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { sizeBytes } from './sizes.js';
import { helpOptions } from './telling-options.js';

export interface CreateAction {
  readonly kind: 'create';
  /** As it was typed. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly format: CreatableFormat;
  readonly settings: CreationSettings<CreatableFormat>;
  /** Tells nothing of what is done. */
  readonly quiet: boolean;
}

type Mode = 'create';
const MODES: readonly Mode[] = ['create'];

const options = {
  format: {
    short: 'f',
    value: '<FORMAT>',
    read: (text: string) => oneOf(text, CREATABLE_FORMATS, 'a format that images can be created in'),
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
  synopsis: ['[-f FORMAT] [-o NAME=VALUE,...] [-q] FILE SIZE'],
  description: [
    'SIZE is a number of bytes; k, M, G, T, P or E behind it stand for powers of 1024. As with qemu-img, a FILE that is there already loses what it holds, unless another program has it in use. Only regular files are made.',
  ],
  modes: { create: { title: 'creating an image' } },
  defaultMode: 'create',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    { does: 'Make an image of 10 GiB that takes no storage yet', command: 'tsnbd create disk.raw 10G' },
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
    const format = values.format ?? 'raw';
    const settings = creationSettings(format, (values.options ?? []).flat());
    const path = operands.read('FILE', fileName);
    const bytes = operands.read('SIZE', sizeBytes);
    operands.end();
    return { kind: 'create' as const, path, sizeBytes: bytes, format, settings, quiet: values.quiet ?? false };
  });
}
