import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { errnoName, errnoText } from '#tsnbd/kernel/errno.js';
import { libc, loadLibc } from '#tsnbd/kernel/libc.js';

const path = fileURLToPath(import.meta.resolve('#tsnbd/kernel/libc.js'));

function run(script: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const text = script.replaceAll('LIBC', JSON.stringify(path));
  const options = { encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL' } as const;
  return spawnSync(process.execPath, ['--input-type=module', '-e', text], options);
}

describe('libc', () => {
  it('answers −errno of this call, whatever an earlier call left', () => {
    loadLibc();
    loadLibc();
    expect(libc.shutdown(99_999, 2)).toBe(-9);
    expect(libc.fcntl(0, 1030, 3)).toBeGreaterThan(2);
    expect(libc.ioctl(0, 0xab00, 0)).toBe(-25);
  });

  it('works in a worker that starts after the main thread loaded it', () => {
    const { stdout, stderr } = run(
      `import { Worker } from 'node:worker_threads';
       import { loadLibc } from LIBC;
       loadLibc();
       new Worker('import(' + JSON.stringify(LIBC) + ').then(({ libc }) => console.log(libc.shutdown(99999, 2)))', { eval: true });`,
    );
    expect(stderr).toBe('');
    expect(stdout).toBe('-9\n');
  });

  it('refuses to be loaded by a worker: two that resolve names at once can crash', () => {
    const { stdout } = run(
      `import { Worker } from 'node:worker_threads';
       new Worker('import(' + JSON.stringify(LIBC) + ').then(({ libc }) => libc.shutdown(99999, 2)).catch((e) => console.log(e.message))', { eval: true });`,
    );
    expect(stdout).toContain('loaded on the main thread');
  });

  it('blocks the signals of the calling thread alone', () => {
    const { stdout } = run(
      `import { readFileSync } from 'node:fs';
       import { libc } from LIBC;
       const set = new Uint8Array(128).fill(0xff);
       console.log(libc.pthreadSigmask(0, set), libc.pthreadSigmask(77, set));
       for (const task of ['/proc/thread-self', '/proc/self/task/' + process.pid])
         console.log(/SigBlk:\\t(\\S+)/.exec(readFileSync(task + '/status', 'utf8'))[1]);`,
    );
    const [results, mask] = stdout.split('\n');
    expect(results).toBe('0 -22');
    // All but SIGKILL, SIGSTOP and the two that the C library keeps for itself.
    expect(mask).toBe('fffffffe7ffbfeff');
  });
});

it('names errnos', () => {
  expect(errnoName(16)).toBe('EBUSY');
  expect(errnoName(11)).toBe('EAGAIN');
  expect(errnoName(4711)).toBe('errno 4711');
  expect(errnoText(16)).toBe('resource busy or locked (EBUSY)');
  expect(errnoText(22)).toBe('invalid argument (EINVAL)');
  expect(errnoText(4711)).toBe('errno 4711');
});
