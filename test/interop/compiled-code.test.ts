import { execFile, execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
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
import { bundle, compile } from '../../scripts/bundle.js';

const folder = mkdtempSync(join(tmpdir(), 'tsnbd-compiled-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const dist = join(import.meta.dirname, '../../dist');
const cachesIn = (of: string) => readdirSync(of).filter((name) => name.endsWith('.cache'));

async function make(text: string): Promise<void> {
  const [program, part] = [join(folder, 'program.js'), join(folder, 'part.js')];
  writeFileSync(program, `void import('./part.js').then(({ tell }) => tell());\n`);
  writeFileSync(part, `export const tell = () => console.log('${text}');\n`);
  await bundle([program], [part], join(folder, 'dist'));
}

const said = (...options: string[]) =>
  execFileSync(process.execPath, [...options, join(folder, 'dist/program.js')], { encoding: 'utf8' });

/** The hash of the code that a program runs, its own or that of a part, as it stands in the program. */
const hashIn = (program: string, name: string) =>
  new RegExp(`"${name}":"([0-9a-f]{16})"`).exec(readFileSync(program, 'utf8'))?.[1] ?? '';

test('V8 takes what was compiled when the package was built, for each program, process, thread and part of them', () => {
  const codes = readdirSync(dist).filter((name) => name.endsWith('.code.js'));
  expect(codes.length).toBeGreaterThan(10);
  for (const code of codes) {
    const [cache = '', another] = cachesIn(dist).filter((each) => each.startsWith(`${code}.`));
    expect(another).toBeUndefined();
    const name = code.replace('.code.js', '');
    const program = join(dist, existsSync(join(dist, `${name}.js`)) ? `${name}.js` : 'tsnbd.js');
    expect(hashIn(program, name)).toBe(cache.split('.')[3]);
    const cachedData = readFileSync(join(dist, cache));
    const script = new Script(readFileSync(join(dist, code), 'latin1'), { filename: join(dist, code), cachedData });
    expect(script.cachedDataRejected).toBe(false);
  }
});

test('what V8 does not take, and what was compiled of other code, is of no effect', async () => {
  await make('one');
  compile(join(folder, 'dist'));
  expect(said()).toBe('one\n');
  expect(said('--max-old-space-size=256')).toBe('one\n');
  await make('two'); // as long: V8 would take what was made of the first
  expect(said()).toBe('two\n');
  compile(join(folder, 'dist'));
  const caches = cachesIn(join(folder, 'dist'));
  expect(caches.length).toBe(2);
  for (const length of [100, 0]) {
    for (const cache of caches) truncateSync(join(folder, 'dist', cache), length);
    expect(said()).toBe('two\n');
  }
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
  compile(join(folder, 'dist'));
  const cache = cachesIn(join(folder, 'dist')).find((name) => name.startsWith('part.')) ?? '';
  await make('two');
  const two = hashIn(join(folder, 'dist/program.js'), 'part');
  renameSync(join(folder, 'dist', cache), join(folder, 'dist', cache.replace(/[0-9a-f]{16}/, two)));
  expect(said()).toBe('one\n'); // V8 was deceived, so it does take what has this name
  const another = join(folder, 'node');
  copyFileSync(process.execPath, another);
  expect(execFileSync(another, [join(folder, 'dist/program.js')], { encoding: 'utf8' })).toBe('two\n');
});
