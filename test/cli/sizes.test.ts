import { describe, expect, test } from 'vitest';
import { UsageError } from '#tsnbd/cli/errors.js';
import { exactSize, sizeBytes, sizeInWords } from '#tsnbd/cli/sizes.js';

describe('a size is read as qemu-img reads it', () => {
  test.each([
    ['0', 0],
    ['1', 1],
    ['007', 7],
    ['1000', 1000],
    ['1b', 1],
    ['1B', 1],
    ['1k', 1024],
    ['1K', 1024],
    ['1M', 2 ** 20],
    ['1g', 2 ** 30],
    ['1T', 2 ** 40],
    ['7P', 7 * 2 ** 50],
    ['1.5k', 1536],
    ['1.k', 1024],
    ['0.1k', 102],
    ['0.0009765625k', 1],
    ['2.5G', 2_684_354_560],
    ['0x1000', 4096],
    ['0X1f', 31],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s', (text, bytes) => {
    expect(sizeBytes(text)).toBe(bytes);
  });

  test.each([
    '',
    'k',
    '.5k',
    '-1',
    '+1',
    ' 1',
    '1 ',
    '1 k',
    '1kb',
    '1KiB',
    '1e3',
    '1.5',
    '1.5b',
    '1,5k',
    '0x',
    '0x10k',
    '0xg',
    'x',
    '١',
    `1.${'0'.repeat(31)}k`,
    '1'.repeat(21),
  ])('not %j', (text) => {
    expect(() => sizeBytes(text)).toThrow(UsageError);
    expect(() => sizeBytes(text)).toThrow(`'${text}' is not a size`);
  });

  test.each(['9007199254740992', '8P', '1E', '16E', '0xffffffffffffffff'])('%s is too large', (text) => {
    expect(() => sizeBytes(text)).toThrow(`'${text}' is too large: at most 9007199254740991 bytes can be used`);
  });
});

describe('a size is shown', () => {
  test.each([
    [0, '0 B', '0'],
    [1, '1 B', '1'],
    [999, '999 B', '999'],
    [1000, '0.977 KiB', '1000'],
    [1024, '1 KiB', '1K'],
    [1536, '1.5 KiB', '1536'],
    [4096, '4 KiB', '4K'],
    [1_048_576, '1 MiB', '1M'],
    [1_048_577, '1 MiB', '1048577'],
    [1_500_000, '1.43 MiB', '1500000'],
    [10_737_418_240, '10 GiB', '10G'],
    [2 ** 50, '1 PiB', '1P'],
    [Number.MAX_SAFE_INTEGER, '8 PiB', '9007199254740991'],
  ])('%i: %s for a reader, %s exactly', (bytes, words, exact) => {
    expect(sizeInWords(bytes)).toBe(words);
    expect(exactSize(bytes)).toBe(exact);
  });
});
