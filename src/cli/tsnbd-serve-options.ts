import { about, UsageError } from './errors.js';
import { imageOptions, imageSettingsOf } from './image-options.js';
import type { OptionTable, Program } from './option-table.js';
import { description, exportName, pair, path } from './option-values.js';
import { type Answer, type Given, type Operands, parse, verbosityOf } from './parse.js';
import { type ExportRequest, type ServeAction, servingOf, servingOptions } from './serving-options.js';
import { tellingOptions } from './telling-options.js';

/** The list of a server goes out at once: so many names and descriptions, as long as NBD allows, are below 1 MiB. */
const EXPORTS_MAX = 100;

type Mode = 'serve';
const MODES: readonly Mode[] = ['serve'];

const options = {
  description: {
    short: 'D',
    value: '<NAME=TEXT>',
    read: (text: string) => pair(text, 'NAME=TEXT', exportName, description),
    repeats: true,
    modes: MODES,
    help: 'Describe the export NAME in the list of exports; may be given once for each.',
  },
  ...servingOptions(MODES),
  ...imageOptions(MODES),
  ...tellingOptions(MODES, MODES, MODES),
} satisfies OptionTable<Mode>;

export const tsnbdServeProgram: Program<Mode, typeof options> = {
  name: 'tsnbd serve',
  summary: 'serve several disk images, each as an export with a name of its own',
  synopsis: [
    '[-b ADDR] [-p PORT] [-e NUM] [-t] [-D NAME=TEXT]... NAME=PATH...',
    '-k PATH [-e NUM] [-t] [-D NAME=TEXT]... NAME=PATH...',
  ],
  description: [
    `Each NAME=PATH serves the image PATH as the export NAME, which ends at the first equals sign; an empty NAME is the default export, for clients that name none. There may be ${EXPORTS_MAX} of them. What the options say holds for all of them, and --shared for all of them together.`,
  ],
  modes: { serve: { title: 'serving exports' } },
  defaultMode: 'serve',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [
    {
      does: 'Serve two images to any number of clients, until stopped',
      command: 'tsnbd serve -k /run/nbd.sock -t -e 0 -D a=Debian a=a.raw b=b.raw',
    },
  ],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `serve`. */
export function parseTsnbdServe(argv: readonly string[], passedSockets: number): ServeAction | Answer {
  return parse(tsnbdServeProgram, argv, ({ values, operands }: Given<Mode, typeof options>) => ({
    kind: 'serve' as const,
    ...servingOf(values, passedSockets),
    exports: exportsOf(operands, new Map(describedOnce(values.description ?? []))),
    settings: imageSettingsOf(values),
    verbosity: verbosityOf(values),
  }));
}

function describedOnce(described: readonly (readonly [string, string])[]): readonly (readonly [string, string])[] {
  const names = described.map(([name]) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new UsageError(`option --description: the export '${twice}' is described twice`);
  return described;
}

function exportsOf(operands: Operands, descriptions: ReadonlyMap<string, string>): readonly ExportRequest[] {
  const exports = new Map<string, ExportRequest>();
  do {
    const [name, imagePath] = operands.read('NAME=PATH', (text) => pair(text, 'NAME=PATH', exportName, path));
    about('NAME=PATH', () => {
      if (exports.has(name)) throw new UsageError(`the export '${name}' is there twice`);
      if (exports.size === EXPORTS_MAX) throw new UsageError(`more than ${EXPORTS_MAX} exports`);
    });
    exports.set(name, { name, description: descriptions.get(name), imagePath });
  } while (operands.at(0) !== undefined);
  for (const name of descriptions.keys()) {
    if (!exports.has(name)) throw new UsageError(`option --description: there is no export '${name}'`);
  }
  return [...exports.values()];
}
