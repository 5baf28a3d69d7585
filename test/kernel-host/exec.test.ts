import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

const exec = import.meta.resolve('#tsnbd/kernel/exec.js');
const LIMITED = { encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL' } as const;

test('a process becomes another program with the same number, words, environment and standard streams', () => {
  const code = `
    const { becomeProgram } = await import(${JSON.stringify(exec)});
    process.env.ADDED = 'a b=c ä';
    becomeProgram('/bin/sh', ['-c', 'read line; echo "$$ $line $ADDED $1"; echo told >&2; exit 7', 'sh', '', 'x y']);`;
  const options = { input: 'line\n', ...LIMITED } as const;
  const { pid, status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], options);
  expect({ status, stdout, stderr }).toEqual({ status: 7, stdout: `${pid} line a b=c ä \n`, stderr: 'told\n' });
});

test('a program that is not there is an error', () => {
  const code = `
    const { becomeProgram } = await import(${JSON.stringify(exec)});
    try { becomeProgram('/nowhere/absent', []); } catch (error) { console.log(error.message); }`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], LIMITED);
  expect(stdout).toBe('cannot start /nowhere/absent: no such file or directory (ENOENT)\n');
});
