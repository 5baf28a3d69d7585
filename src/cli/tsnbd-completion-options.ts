import type { OptionTable, Program } from './option-table.js';
import { wordOf } from './option-values.js';
import { type Answer, type Given, parse } from './parse.js';
import { SHELLS, type Shell } from './shells.js';
import { helpOptions } from './telling-options.js';

export interface CompletionAction {
  readonly kind: 'completion';
  readonly shell: Shell;
}

type Mode = 'completion';
const MODES: readonly Mode[] = ['completion'];

const options = { ...helpOptions(MODES) } satisfies OptionTable<Mode>;

export const tsnbdCompletionProgram: Program<Mode, typeof options> = {
  name: 'tsnbd completion',
  summary: 'print what completes command lines in a shell',
  synopsis: ['bash|zsh|fish'],
  description: [
    'A script for the shell, by which it completes the commands, options and values of tsnbd and tsnbd-client. "tsnbd install" puts all three where the shells look for them. Without it, ~/.bashrc has the line: source <(tsnbd completion bash); ~/.zshrc, behind compinit: source <(tsnbd completion zsh); ~/.config/fish/config.fish: tsnbd completion fish | source.',
  ],
  operandWords: SHELLS,
  modes: { completion: { title: 'printing a completion' } },
  defaultMode: 'completion',
  options,
  longWithOneDash: false,
  exitStatusNotes: [],
  files: [],
  examples: [{ does: 'See what completes command lines in bash', command: 'tsnbd completion bash' }],
  seeAlso: [],
};

/** Reads the arguments of tsnbd that follow `completion`. */
export function parseTsnbdCompletion(argv: readonly string[]): CompletionAction | Answer {
  return parse(tsnbdCompletionProgram, argv, ({ operands }: Given<Mode, typeof options>) => {
    const shell = operands.read('SHELL', wordOf(SHELLS, 'a shell whose command lines are completed'));
    operands.end();
    return { kind: 'completion' as const, shell };
  });
}
