import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { addLine, formattedLine, fstabLines, isOurs } from '#tsnbd/mount/fstab-file.js';

const folder = mkdtempSync(join(tmpdir(), 'tsnbd-fstab-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('lines of fstab are read as mount(8) reads them', () => {
  const text =
    '# c\n\n  /dev/sda1\t/ ext4  defaults 0 1\n/my\\040disk.img /mnt/a\\011b/ tsnbd partition=1 0 0\nshort x\nnbd://h /m tsnbd.xfs';
  expect(fstabLines(text)).toEqual([
    { number: 3, spec: '/dev/sda1', folder: '/', type: 'ext4', options: 'defaults', passno: '1' },
    { number: 4, spec: '/my disk.img', folder: '/mnt/a\tb', type: 'tsnbd', options: 'partition=1', passno: '0' },
    { number: 6, spec: 'nbd://h', folder: '/m', type: 'tsnbd.xfs', options: 'defaults', passno: '0' },
  ]);
  expect(fstabLines(text).map(isOurs)).toEqual([false, true, true]);
});

test('a line that is written is read as it was meant', () => {
  const field = fc.string({
    minLength: 1,
    maxLength: 20,
    unit: fc.constantFrom('a', ' ', '\t', '\n', '\\', '0', 'é', '='),
  });
  fc.assert(
    fc.property(field, field, field, (spec, name, options) => {
      const line = { spec: `/${spec}`, folder: `/mnt/${name}x`, type: 'tsnbd', options };
      expect(fstabLines(formattedLine(line))).toEqual([{ number: 1, ...line, passno: '0' }]);
    }),
  );
});

describe('a line is added', () => {
  const line = formattedLine({ spec: 'nbd://h/', folder: '/mnt/x', type: 'tsnbd', options: '_netdev' });

  test('at the end, with the file as it was beside it, whatever it is called by', () => {
    const file = join(folder, 'fstab');
    writeFileSync(file, '/dev/sda1 / ext4 defaults 0 1'); // without a newline at its end
    chmodSync(file, 0o600);
    symlinkSync('fstab', join(folder, 'link'));
    expect(addLine(join(folder, 'link'), line)).toBe(`${file}.before-tsnbd`);
    expect(readFileSync(file, 'utf8')).toBe(`/dev/sda1 / ext4 defaults 0 1\n${line}\n`);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder).sort()).toEqual(['fstab', 'fstab.before-tsnbd', 'link']);
  });

  test('not for a mount point that has one', () => {
    const file = join(folder, 'other');
    writeFileSync(file, '/dev/sda1 /mnt/x/ ext4\n');
    expect(() => addLine(file, line)).toThrow(`${file} has a line for /mnt/x already, line 1`);
    expect(readFileSync(file, 'utf8')).toBe('/dev/sda1 /mnt/x/ ext4\n');
  });
});
