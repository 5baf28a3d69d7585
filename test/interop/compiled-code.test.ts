import { execFile, execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Script } from 'node:vm';
import { afterAll, expect, test } from 'vitest';
import { bundle } from '../../scripts/bundle.js';

const folder = mkdtempSync(join(tmpdir(), 'tsnbd-compiled-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const dist = join(import.meta.dirname, '../../dist');
const cachesIn = (of: string) => readdirSync(of).filter((name) => name.endsWith('.cache'));

async function make(text: string): Promise<void> {
  writeFileSync(join(folder, 'program.mjs'), `console.log('${text}');\n`);
  await bundle([join(folder, 'program.mjs')], join(folder, 'dist'));
}

const compile = () => {
  copyFileSync(join(import.meta.dirname, '../../scripts/compile.cjs'), join(folder, 'dist/compile.cjs'));
  execFileSync(process.execPath, [join(folder, 'dist/compile.cjs')]);
};
const said = (...options: string[]) =>
  execFileSync(process.execPath, [...options, join(folder, 'dist/program.js')], { encoding: 'utf8' });

test('V8 takes what was compiled when the package was built, for each program, process and thread', () => {
  const codes = readdirSync(dist).filter((name) => name.endsWith('.code.js'));
  expect(codes.length).toBeGreaterThan(10);
  for (const name of codes) {
    const [cache = '', another] = cachesIn(dist).filter((each) => each.startsWith(`${name}.`));
    expect(another).toBeUndefined();
    expect(readFileSync(join(dist, name.replace('.code', '')), 'utf8')).toContain(cache.split('.')[3]);
    const cachedData = readFileSync(join(dist, cache));
    const script = new Script(readFileSync(join(dist, name), 'latin1'), { filename: join(dist, name), cachedData });
    expect(script.cachedDataRejected).toBe(false);
  }
});

test('what V8 does not take, and what was compiled of other code, is of no effect', async () => {
  await make('one');
  compile();
  expect(said()).toBe('one\n');
  expect(said('--max-old-space-size=256')).toBe('one\n');
  await make('two'); // as long: V8 would take what was made of the first
  expect(said()).toBe('two\n');
  compile();
  const [cache = '', another] = cachesIn(join(folder, 'dist'));
  expect(another).toBeUndefined();
  truncateSync(join(folder, 'dist', cache), 100);
  expect(said()).toBe('two\n');
  truncateSync(join(folder, 'dist', cache), 0);
  expect(said()).toBe('two\n');
});

test('two that compile at the same time do not get in each other’s way', async () => {
  const both = join(folder, 'both');
  cpSync(dist, both, { recursive: true });
  copyFileSync(join(import.meta.dirname, '../../scripts/compile.cjs'), join(both, 'compile.cjs'));
  const compiled = () => promisify(execFile)(process.execPath, [join(both, 'compile.cjs')]);
  await Promise.all([compiled(), compiled()]);
  expect(readdirSync(both).sort()).toEqual(readdirSync(dist).sort());
});

test('what one build of Node has compiled is of no effect with another, of the same version too', async () => {
  await make('one');
  compile();
  const [cache = ''] = cachesIn(join(folder, 'dist'));
  await make('two');
  const [, two = ''] = /\.([0-9a-f]{16})\./.exec(readFileSync(join(folder, 'dist/program.js'), 'utf8')) ?? [];
  renameSync(join(folder, 'dist', cache), join(folder, 'dist', cache.replace(/[0-9a-f]{16}/, two)));
  expect(said()).toBe('one\n'); // V8 was deceived, so it does take what has this name
  const another = join(folder, 'node');
  copyFileSync(process.execPath, another);
  expect(execFileSync(another, [join(folder, 'dist/program.js')], { encoding: 'utf8' })).toBe('two\n');
});
