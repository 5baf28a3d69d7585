import { readdirSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ROOT, type SourceFile, sourceFiles } from './source-files.js';

/** A room imports only rooms to its right. */
const ROOMS = ['cli', 'mount', 'attach', 'server', 'image', 'transport', 'daemon', 'kernel', 'protocol', 'base'];
/** Packages and the one place that may import each. */
const PACKAGE_HOMES: Readonly<Record<string, string>> = {
  commander: 'src/cli/',
  'ffi-rs': 'src/kernel/libc.ts',
  fzstd: 'src/image/qcow2/decompress.ts',
};
/** What Node starts by its own file, so that no import leads to it. */
const ENTRIES = [
  'src/cli/tsnbd.ts',
  'src/cli/tsnbd-client.ts',
  'src/cli/mount-tsnbd.ts',
  'src/cli/umount-tsnbd.ts',
  'src/cli/man-page.ts',
  'src/cli/completion-scripts.ts',
  'src/attach/attach-process.ts',
  'src/attach/remote-attach-process.ts',
  'src/attach/disconnect-process.ts',
  'src/cli/serve-process.ts',
  'src/server/worker.ts',
  'src/kernel/do-it-thread.ts',
];

const files = sourceFiles('src');
const room = (path: string) => path.split('/')[1] ?? '';
const target = (file: SourceFile, specifier: string) =>
  normalize(join(dirname(file.path), specifier)).replace(/\.js$/, '.ts');

function breaches(rule: (file: SourceFile, specifier: string) => boolean): string[] {
  return files.flatMap((file) =>
    file.imports.filter((specifier) => rule(file, specifier)).map((specifier) => `${file.path} imports ${specifier}`),
  );
}

describe('the walls between rooms', () => {
  test('src holds the rooms and nothing else', () => {
    expect(readdirSync(join(ROOT, 'src')).sort()).toEqual([...ROOMS].sort());
  });

  test('a room imports only rooms to its right', () => {
    const upwards = breaches((file, specifier) => {
      if (!specifier.startsWith('.')) return false;
      return ROOMS.indexOf(room(target(file, specifier))) < ROOMS.indexOf(room(file.path));
    });
    expect(upwards).toEqual([]);
  });

  test('the protocol room imports only base: no socket, no file, no timer', () => {
    const forbidden = breaches((file, specifier) => {
      if (room(file.path) !== 'protocol' && room(file.path) !== 'base') return false;
      return !specifier.startsWith('.') || !['protocol', 'base'].includes(room(target(file, specifier)));
    });
    expect(forbidden).toEqual([]);
  });

  test('the image room knows no socket', () => {
    expect(
      breaches((file, specifier) => room(file.path) === 'image' && /^node:(net|dgram|tls|dns)/.test(specifier)),
    ).toEqual([]);
  });

  test('each package is imported in its one place', () => {
    const strays = breaches((file, specifier) => {
      if (specifier.startsWith('.') || specifier.startsWith('node:')) return false;
      const home = PACKAGE_HOMES[specifier];
      return home === undefined || !file.path.startsWith(home);
    });
    expect(strays).toEqual([]);
  });

  test('the request loop awaits nothing', () => {
    const loop = files.find((file) => file.path === 'src/server/request-loop.ts');
    expect(loop?.text).toBeDefined();
    expect(loop?.text).not.toMatch(/\b(await|async|Promise)\b/);
  });

  test('only cli and daemon/log write to the user', () => {
    const writers = files
      .filter((file) => /process\.(stdout|stderr)|\bconsole\./.test(file.text))
      .map((file) => file.path);
    expect(writers.filter((path) => !path.startsWith('src/cli/') && path !== 'src/daemon/log.ts')).toEqual([]);
  });
});

describe('files', () => {
  test('every file is imported by another, or is an entry', () => {
    const imported = new Set(files.flatMap((file) => file.imports.map((specifier) => target(file, specifier))));
    const unused = files.map((file) => file.path).filter((path) => !imported.has(path) && !ENTRIES.includes(path));
    expect(unused).toEqual([]);
  });

  test('basenames are unique, for dist is flat', () => {
    const entries = ENTRIES.map((path) => basename(path));
    expect(new Set(entries).size).toBe(entries.length);
  });

  test('no file of src is longer than 300 lines', () => {
    expect(files.filter((file) => file.lines > 300).map((file) => `${file.path}: ${file.lines}`)).toEqual([]);
  });
});
