import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { listedOptions } from '#tsnbd/mount/option-list.js';

const texts = (list: string) => listedOptions(list).map(({ text }) => text);

describe('a list of mount options', () => {
  test.each([
    ['', []],
    ['ro', ['ro']],
    ['rw,noatime,,partition=1,', ['rw', 'noatime', 'partition=1']],
    // mount(8): a value with commas stands in quotes, which the file system's own mount takes off.
    ['context="system_u:object_r:t:s0:c1,c2",ro', ['context="system_u:object_r:t:s0:c1,c2"', 'ro']],
    ['a=b="c,d"e,f', ['a=b="c,d"e', 'f']],
  ])('%s', (list, expected) => {
    expect(texts(list)).toEqual(expected);
  });

  test('has names, and values without the quotes around them', () => {
    expect(listedOptions('ro,name=a=b,name="x,y",name=')).toMatchObject([
      { name: 'ro', value: undefined },
      { name: 'name', value: 'a=b' },
      { name: 'name', value: 'x,y' },
      { name: 'name', value: '' },
    ]);
  });

  test.each([
    ['name=a\nb', /control character/],
    ['name=a\0b', /control character/],
    ['name="a,b', /not closed/],
    ['x'.repeat(4_097), /4096 bytes/],
  ])('is refused: %j', (list, message) => {
    expect(() => listedOptions(list)).toThrow(message);
  });

  test('is put together again as it was, whatever it holds', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 50, unit: fc.constantFrom('a', ',', '"', '=', '\\', ' ') }), (list) => {
        fc.pre((list.split('"').length - 1) % 2 === 0);
        const parts = texts(list);
        // Nothing is added or lost but commas that stand for nothing, and no comma outside quotes is left in an option.
        expect(parts.join(',')).toBe(parts.length === 0 ? '' : texts(parts.join(',')).join(','));
        for (const part of parts) expect(part.replaceAll(/"[^"]*"/g, '')).not.toContain(',');
        expect(parts.join('').replaceAll(',', '')).toBe(list.replaceAll(',', ''));
      }),
    );
  });
});
