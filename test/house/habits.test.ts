import { execFileSync } from 'node:child_process';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ROOT, sourceFiles } from './source-files.js';

const src = sourceFiles('src');
const tests = sourceFiles('test').filter((file) => !file.path.startsWith('test/house/'));
const all = [...src, ...tests, ...sourceFiles('scripts'), ...sourceFiles('bench')];

/** A word that says nothing, and what to say instead. */
const BANNED_NAMES: Readonly<Record<string, string>> = {
  utils: 'the name of what it does',
  util: 'the name of what it does',
  helpers: 'the name of what it does',
  helper: 'the name of what it does',
  manager: 'what it holds or decides',
  common: 'the room or the idea',
  misc: 'several files',
};

function lines(pattern: RegExp, files = all): string[] {
  return files.flatMap((file) =>
    file.text
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${file.path}:${index + 1}: ${line.trim()}`] : [])),
  );
}

describe('habits of the house', () => {
  test('nothing is left for later', () => {
    expect(lines(/\b(TODO|FIXME|XXX|HACK)\b/)).toEqual([]);
  });

  test('no test is skipped or runs alone', () => {
    expect(lines(/\b(it|test|describe)\.(only|skip|todo|fails)\b/, tests)).toEqual([]);
  });

  test('files are named for what they do', () => {
    const bad = all.filter((file) =>
      basename(file.path)
        .split(/[-.]/)
        .some((word) => word in BANNED_NAMES),
    );
    expect(bad.map((file) => file.path)).toEqual([]);
  });

  test('no path of a machine and no registry is named', () => {
    const listed = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' }).split('\0').filter(Boolean);
    expect(listed).toContain('package.json');
    expect(lines(/\/(home|root|Users)\/\w+\//)).toEqual([]);
    const lock = execFileSync('git', ['show', ':package-lock.json'], {
      cwd: ROOT,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    expect(lock).not.toContain('"resolved"');
  });
});

describe('tools', () => {
  const node = (script: string, ...args: string[]) => {
    try {
      execFileSync(process.execPath, [join(ROOT, script), ...args], { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' });
      return '';
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string };
      return stdout + stderr;
    }
  };

  test('format and lint are clean', () => {
    expect(node('node_modules/@biomejs/biome/bin/biome', 'ci', '--error-on-warnings', '.')).toBe('');
  });

  test('tests and scripts type-check', () => {
    expect(node('node_modules/typescript/bin/tsc', '-p', 'tsconfig.test.json')).toBe('');
  });
});
