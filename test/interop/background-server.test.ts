import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runTsnbd, succeed } from './served.js';

let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-background-'));
  for (const name of ['disk.raw', 'other.raw']) {
    writeFileSync(at(name), '');
    truncateSync(at(name), 1 << 20);
  }
});
afterEach(() => {
  if (existsSync(at('pid'))) process.kill(Number(readFileSync(at('pid'), 'latin1')), 'SIGKILL');
  rmSync(folder, { recursive: true });
});

test('a server in the background serves when the command returns, and lists as qemu-nbd does', async () => {
  const words = ['--fork', '--pid-file', at('pid'), '-k', at('sock'), '-t', '-x', 'one', '-D', 'the first'];
  const notice = expect.stringMatching(/^tsnbd: .* is taken for raw, .*\n$/);
  expect(await runTsnbd(...words, at('disk.raw'))).toEqual({ status: 0, stdout: '', stderr: notice });
  expect(statSync(at('pid')).mode & 0o777).toBe(0o600);
  const ours = (await runTsnbd('-L', '-k', at('sock'))).stdout;
  expect(ours).toContain('  transaction size: 64-bit\n');
  expect(ours.replace('  transaction size: 64-bit\n', '')).toBe(await succeed('qemu-nbd', '-L', '-k', at('sock')));

  // What it cannot do is the command's failure, whatever a server does by then.
  const second = await runTsnbd('--fork', '-k', at('other'), '-f', 'raw', at('disk.raw'));
  expect(second).toMatchObject({ status: 5, stderr: expect.stringMatching(/^tsnbd: .* is in use by .*\n$/) });
  const unwritable = await runTsnbd(
    '--fork',
    '--pid-file',
    at('no/pid'),
    '-r',
    '-k',
    at('other'),
    '-f',
    'raw',
    at('other.raw'),
  );
  expect(unwritable.stderr).toBe(
    `tsnbd: the process id cannot be written to ${at('no/pid')}: no such file or directory (ENOENT)\n`,
  );
  expect(unwritable.status).toBe(1);
  expect(existsSync(at('other'))).toBe(false);

  process.kill(Number(readFileSync(at('pid'), 'latin1')), 'SIGTERM');
  await expect.poll(() => existsSync(at('pid')) || existsSync(at('sock'))).toBe(false);
});

test('a server that answers a flush at once says so when it starts', async () => {
  const words = ['--fork', '--pid-file', at('pid'), '-k', at('sock'), '-t', '-f', 'raw', '--cache=unsafe'];
  const unsafe = 'is opened as unsafe: a flush is answered at once, and a crash of this machine may ruin it';
  expect(await runTsnbd(...words, at('disk.raw'))).toEqual({
    status: 0,
    stdout: '',
    stderr: `tsnbd: ${at('disk.raw')} ${unsafe}\n`,
  });
});
