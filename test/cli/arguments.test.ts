import { describe, expect, test } from 'vitest';
import { spellOut } from '#tsnbd/cli/arguments.js';
import { commandOf, type OptionTable, type Program } from '#tsnbd/cli/option-table.js';
import { parse } from '#tsnbd/cli/parse.js';

const options = {
  size: { short: 's', value: '<BYTES>', modes: ['run'], help: 'How much.' },
  'no-cache': { modes: ['run'], help: 'A switch whose name begins with no-.' },
  nofork: { short: 'n', modes: ['run'], help: 'A switch whose name begins alike.' },
} satisfies OptionTable<'run'>;

const program: Program<'run', typeof options> = {
  name: 'program',
  summary: 'does things',
  synopsis: [''],
  description: [],
  modes: { run: { title: 'running' } },
  defaultMode: 'run',
  options,
  longWithOneDash: true,
  exitStatusNotes: [],
  files: [],
  examples: [],
  seeAlso: [],
};

describe('spelling out', () => {
  test.each([
    [
      ['-size', '4'],
      ['--size', '4'],
    ],
    [['-size=4'], ['--size=4']],
    [['-si=4'], ['--size=4']],
    [
      ['--si', '-n'],
      ['--size', '-n'],
    ],
    [
      ['-s', '-size', '-size', '5'],
      ['-s', '-size', '--size', '5'],
    ],
    [
      ['-s4', '-size', '5'],
      ['-s4', '--size', '5'],
    ],
    [
      ['-ns', '-nofork', '-nofork'],
      ['-ns', '-nofork', '--nofork'],
    ],
    [
      ['a', '-nofork', '--', '-nofork'],
      ['a', '--nofork', '--', '-nofork'],
    ],
    [
      ['-', '', 'nofork'],
      ['-', '', 'nofork'],
    ],
    [
      ['--unheard-of', '-nof'],
      ['--unheard-of', '--nofork'],
    ],
  ])('%j', (typed, spelled) => {
    expect(spellOut(program, typed)).toEqual(spelled);
  });

  test('an option that is refused is named, with the reason, however it was typed', () => {
    const refusing = { ...program, refused: { certfile: { short: 'F', why: 'no TLS yet' } } };
    for (const typed of ['--certfile', '-certfile=x', '--cert']) {
      expect(() => spellOut(refusing, [typed])).toThrow('option --certfile: no TLS yet');
    }
    expect(() => spellOut(refusing, ['-nF'])).toThrow('option -F: no TLS yet');
    const alike = { ...refusing, refused: { ...refusing.refused, 'size-limit': { why: 'no' } } };
    expect(() => spellOut(alike, ['--siz'])).toThrow('could be --size or --size-limit');
    expect(spellOut(alike, ['--size=1'])).toEqual(['--size=1']);
  });

  test('one dash means letters where the program is no getopt_long_only one', () => {
    const strict = { ...program, longWithOneDash: false };
    expect(spellOut(strict, ['-ns', '-nofork', '--nof'])).toEqual(['-ns', '-nofork', '--nofork']);
    expect(() => spellOut(strict, ['-nofork'])).toThrow("unknown option '-o' in -nofork");
  });
});

describe('a table makes a command', () => {
  test('an option that begins with no- is a switch like others', () => {
    const { command, valuesOf } = commandOf(program);
    expect(valuesOf()).toEqual({});
    command.parse(['--no-cache', 'operand'], { from: 'user' });
    expect(valuesOf()).toEqual({ 'no-cache': true });
    expect(command.args).toEqual(['operand']);
  });

  test('what is broken in the program is not told as an error of its user', () => {
    const broken = () => {
      throw new RangeError('a bug');
    };
    expect(() => parse(program, [], broken)).toThrow(RangeError);
  });
});
