import { shellQuoted } from '../base/shell-quoted.js';
import {
  type CompletedCommand,
  type CompletedOption,
  lastWord,
  type Offer,
  withSubcommands,
} from './completed-command.js';

/** The script for zsh 5: a function that compinit finds by its first line, or that tells compdef of itself where it is sourced. */
export function zshCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name).join(' ');
  return `#compdef ${names}
# Completion of ${names} for zsh, made from their option tables.

_tsnbd_devices() {
  local expl
  local -a found=(/dev/nbd*(N))
  _wanted devices expl device compadd -a found
}

_tsnbd_devices_or_files() {
  _alternative 'devices:device:_tsnbd_devices' 'files:file:_files'
}

_tsnbd_commands() {
  local -a commands=(
${commands
  .flatMap(({ subcommands }) => subcommands)
  .map(described)
  .join('')}  )
  _describe -t commands command commands
}

_tsnbd_commands_or_files() {
  _alternative 'commands:command:_tsnbd_commands' 'files:file:_files'
}

_tsnbd() {
  local command=\${service:t}
${commands.map(subcommandChoice).join('')}  case $command in
${commands.flatMap(withSubcommands).map(branch).join('')}  esac
}

if [[ $funcstack[1] == _tsnbd ]]; then
  _tsnbd "$@"
else
  compdef _tsnbd ${names}
fi
`;
}

function described({ name, does }: CompletedCommand): string {
  return `    ${shellQuoted(`${lastWord(name)}:${escaped(does)}`)}\n`;
}

/** Makes 'tsnbd info' of 'tsnbd' where that is the second word, which becomes the first. */
function subcommandChoice({ name, subcommands }: CompletedCommand): string {
  if (subcommands.length === 0) return '';
  return `  if [[ $command == ${name} ]] && ((CURRENT > 2)); then
    case $words[2] in
      ${subcommands.map((each) => lastWord(each.name)).join('|')})
        command+=" $words[2]"
        shift words
        ((CURRENT--))
        ;;
    esac
  fi
`;
}

function branch(command: CompletedCommand): string {
  const specs = [...command.options.flatMap(optionSpecs), ...operandSpecs(command)];
  return `    '${command.name}')
      _arguments -s -S : \\
${specs.map((spec) => `        ${shellQuoted(spec)}`).join(' \\\n')}
      ;;
`;
}

/** One for each spelling; unless the option repeats, none is offered behind the other. */
function optionSpecs({ spellings, value, repeats, does }: CompletedOption): readonly string[] {
  const before = repeats ? '*' : `(${spellings.join(' ')})`;
  const action = value === undefined ? '' : `${value.optional ? '::' : ':'}${value.name}:${offered(value.offer)}`;
  return spellings.map((spelling) => {
    const glue = value === undefined ? '' : spelling.startsWith('--') ? '=' : '+';
    return `${before}${spelling}${glue}[${escaped(does)}]${action}`;
  });
}

function operandSpecs({ words, subcommands, takesDevice }: CompletedCommand): readonly string[] {
  const others = `*: :${takesDevice ? '_tsnbd_devices_or_files' : '_files'}`;
  if (words.length === 0) return [others];
  return [subcommands.length === 0 ? `1: :(${words.join(' ')})` : '1: :_tsnbd_commands_or_files', others];
}

function offered(offer: Offer): string {
  switch (offer.kind) {
    case 'words':
      return `(${offer.words.join(' ')})`;
    case 'devices':
      return '_tsnbd_devices';
    case 'folders':
      return '_files -/';
    case 'files':
      return '_files';
    case 'nothing':
      return ' ';
  }
}

/** For a description in brackets, or before a colon. */
function escaped(text: string): string {
  return text.replace(/[\\[\]:]/g, '\\$&');
}
