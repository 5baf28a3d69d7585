import { type CompletedCommand, type CompletedOption, lastWord, withSubcommands } from './completed-command.js';

/** The script for bash 4.4 and later; it needs nothing of the package bash-completion, which loads it where it is installed. */
export function bashCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name);
  return `# Completion of ${names.join(' and ')} for bash, made from their option tables.

_tsnbd() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command=\${COMP_WORDS[0]##*/}
  local devices options offer=operand words='' index
  COMPREPLY=()
  # An equals sign is a word of its own.
  if [[ $current == '=' ]]; then
    current=''
  elif [[ $before == '=' ]]; then
    before=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  # Behind two dashes there are no options.
  for ((index = 1; index < COMP_CWORD; index++)); do
    [[ \${COMP_WORDS[index]} != -- ]] || return 0
  done
  devices=$(compgen -G '/dev/nbd*')
${commands.map(subcommandChoice).join('')}  case $command in
${commands.flatMap(withSubcommands).map(branch).join('')}    *) return 0 ;;
  esac
  [[ $current != -* ]] || offer=option
  case $offer in
    option) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current") ;;
    words) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    folders) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    nothing) compopt +o default ;;
    operand)
      # Where no word fits, bash offers files by itself.
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current" && compgen -f -- "$current")
      compopt -o filenames
      ;;
  esac 2>/dev/null
}

complete -o default -F _tsnbd ${names.join(' ')}
`;
}

/** Makes 'tsnbd info' of 'tsnbd' where that is the second word. */
function subcommandChoice({ name, subcommands }: CompletedCommand): string {
  if (subcommands.length === 0) return '';
  const words = subcommands.map((each) => lastWord(each.name)).join(' | ');
  return `  if [[ $command == ${name} ]] && ((COMP_CWORD > 1)); then
    case \${COMP_WORDS[1]} in
      ${words}) command+=" \${COMP_WORDS[1]}" ;;
    esac
  fi
`;
}

/** What is known of a command: its options, what the one before takes, and what an operand can be besides a file. */
function branch(command: CompletedCommand): string {
  const { name, options } = command;
  const valued = options.filter(({ value }) => value !== undefined);
  return `    '${name}')
      options='${options.flatMap(({ spellings }) => spellings).join(' ')}'
      case $before in
${valued.map((option) => `        ${option.spellings.join(' | ')}) ${offered(option)} ;;\n`).join('')}        *) ${operands(command)} ;;
      esac
      ;;
`;
}

function offered({ value }: CompletedOption): string {
  const offer = value?.offer ?? { kind: 'nothing' };
  if (offer.kind === 'words') return `offer=words words='${offer.words.join(' ')}'`;
  if (offer.kind === 'devices') return 'offer=words words=$devices';
  return `offer=${offer.kind}`;
}

function operands({ name, words, takesDevice }: CompletedCommand): string {
  const place = name.split(' ').length;
  const first = words.length === 0 ? [] : [`((COMP_CWORD == ${place})) && words='${words.join(' ')}'`];
  return [...first, ...(takesDevice ? ['words=$devices'] : [])].join('; ') || ':';
}
