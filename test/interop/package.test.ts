import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tsnbd-package-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** npm sets variables of its own for what it runs; a test that npm started must not hand them on. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));
const command = (program: string, words: string[], cwd = folder) =>
  execFileSync(program, words, { cwd, env, encoding: 'utf8' });

test('installed from the tarball into an empty prefix, both programs work', () => {
  const { version, files } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string;
    files: string[];
  };
  // A clone of its own: packing builds, and other tests use this checkout's build at the same time.
  command('git', ['clone', '-q', '--depth=1', `file://${root}`, 'checkout']);
  const checkout = join(folder, 'checkout');
  command('npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund'], checkout);
  const [packed] = JSON.parse(command('npm', ['pack', '--json', '--pack-destination', folder], checkout)) as [
    { filename: string; files: { path: string }[] },
  ];
  const inside = packed.files.map(({ path }) => path);
  for (const path of inside) {
    expect(
      files.some((top) => path.startsWith(`${top}/`)) || ['package.json', 'README.md', 'LICENSE'].includes(path),
    ).toBe(true);
  }
  expect(inside).toContain('man/tsnbd.8');
  expect(inside.filter((path) => path.endsWith('.cache'))).toEqual([]); // only where they are to run programs are compiled

  const prefix = join(folder, 'prefix');
  command('npm', [
    'install',
    '-g',
    '--prefix',
    prefix,
    '--prefer-offline',
    '--no-audit',
    '--no-fund',
    join(folder, packed.filename),
  ]);
  for (const program of ['tsnbd', 'tsnbd-client']) {
    const path = join(prefix, 'bin', program);
    expect(command(path, ['--version'])).toBe(`${program} ${version}\n`);
    expect(command(path, ['--help'])).toContain(program);
  }
  const installed = readdirSync(join(prefix, 'lib/node_modules/tsnbd/dist'));
  expect(installed.filter((name) => name.endsWith('.cache')).length).toBe(
    installed.filter((name) => name.endsWith('.code.js')).length,
  );
  expect(command(join(prefix, 'bin', 'tsnbd'), ['completion', 'bash'])).toContain(
    'complete -o default -F _tsnbd tsnbd',
  );
  // The thread and the library behind it are found where npm put them.
  command('truncate', ['-s', '1M', 'disk.raw']);
  const size = command('nbdkit', ['-U', '-', '--run', `echo none`, 'null']);
  expect(size).toBe('none\n');
});
