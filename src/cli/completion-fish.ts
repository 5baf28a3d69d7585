import { type CompletedCommand, type CompletedOption, lastWord, type Offer } from './completed-command.js';

/** The script for fish 3 and later. */
export function fishCompletion(commands: readonly CompletedCommand[]): string {
  return `# Completion of ${commands.map(({ name }) => name).join(' and ')} for fish, made from their option tables.

function __tsnbd_devices
    set -l found /dev/nbd*
    string join \\n -- $found
end
${commands.map(programLines).join('')}`;
}

function programLines({ name, subcommands, ...program }: CompletedCommand): string {
  const words = subcommands.map((each) => lastWord(each.name)).join(' ');
  const itself = words === '' ? [] : [`set -l itself ${quoted(`not __fish_seen_subcommand_from ${words}`)}`];
  return [
    '',
    ...itself,
    ...subcommands.map((each) =>
      line(name, '__fish_use_subcommand', [`-a ${lastWord(each.name)}`, `-d ${quoted(each.does)}`]),
    ),
    ...ownLines(name, words === '' ? '' : '$itself', { ...program, words: [] }),
    ...subcommands.flatMap((each) => ownLines(name, `__fish_seen_subcommand_from ${lastWord(each.name)}`, each)),
    '',
  ].join('\n');
}

type Own = Pick<CompletedCommand, 'options' | 'words' | 'takesDevice'>;

function ownLines(program: string, condition: string, { options, words, takesDevice }: Own): readonly string[] {
  const list = words.join(' ');
  return [
    ...(list === ''
      ? []
      : [line(program, `${condition}; and not __fish_seen_subcommand_from ${list}`, [`-a ${quoted(list)}`])]),
    ...(takesDevice ? [line(program, condition, [`-a '(__tsnbd_devices)'`])] : []),
    ...options.map((option) => line(program, condition, optionWords(option))),
  ];
}

function optionWords({ spellings, value, does }: CompletedOption): readonly string[] {
  const names = spellings.map((each) => (each.startsWith('--') ? `-l ${each.slice(2)}` : `-s ${each.slice(1)}`));
  return [...names, ...(value === undefined ? [] : offered(value.offer)), `-d ${quoted(does)}`];
}

function offered(offer: Offer): readonly string[] {
  switch (offer.kind) {
    case 'words':
      return ['-x', `-a ${quoted(offer.words.join(' '))}`];
    case 'devices':
      return ['-x', `-a '(__tsnbd_devices)'`];
    case 'folders':
      return ['-x', `-a '(__fish_complete_directories)'`];
    case 'files':
      return ['-r', '-F'];
    case 'nothing':
      return ['-x'];
  }
}

function line(program: string, condition: string, words: readonly string[]): string {
  return ['complete', `-c ${program}`, ...(condition === '' ? [] : [`-n "${condition}"`]), ...words].join(' ');
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
