import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test, vi } from 'vitest';
import { DaemonError } from '#tsnbd/daemon/errors.js';
import { LaunchedError, launch } from '#tsnbd/daemon/launch.js';

const entry = new URL('./children/launched.js', import.meta.url);
const folder = mkdtempSync(join(tmpdir(), 'tsnbd-launch-'));
afterAll(() => rmSync(folder, { recursive: true }));

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function launched(task: object): Promise<{ error: unknown; events: { cwd: string; pid: number }[] }> {
  const events: { cwd: string; pid: number }[] = [];
  const onEvent = (event: unknown) => events.push(event as never);
  const error = await launch(entry, task, onEvent).then(
    () => undefined,
    (failure: unknown) => failure,
  );
  return { error, events };
}

test('returns when the process is ready, and hands its events on', async () => {
  const { error, events } = await launched({ behave: 'ready' });
  expect(error).toBeUndefined();
  expect(events).toMatchObject([{ cwd: '/' }]);
});

test('a failure arrives with its code, and the process is gone by then', async () => {
  const { error, events } = await launched({ behave: 'fail' });
  expect(error).toBeInstanceOf(LaunchedError);
  expect(error).toMatchObject({ code: 'busy', message: 'the device is busy' });
  expect(alive(events[0]?.pid ?? 0)).toBe(false);
});

test('a process that is killed is an error that says so', async () => {
  const { error } = await launched({ behave: 'die' });
  expect(error).toBeInstanceOf(DaemonError);
  expect((error as Error).message).toBe('the background process ended early (SIGKILL)');
});

test('a process that ends without a word is an error', async () => {
  const { error } = await launched({ behave: 'leave' });
  expect((error as Error).message).toBe('the background process ended early (status 0)');
});

test('a process that does not answer is ended at the time limit', async () => {
  const error = await launch(entry, { behave: 'wait' }, () => {}, { limitMs: 500 }).catch(
    (failure: unknown) => failure,
  );
  expect(error).toMatchObject({ code: 'time-limit' });
});

test('a process is asked to end when its command is', async () => {
  const stop = new AbortController();
  const error = await launch(entry, { behave: 'wait' }, () => stop.abort(), { stop: stop.signal }).catch(
    (failure: unknown) => failure,
  );
  expect((error as Error).message).toBe('the background process ended early (SIGTERM)');
});

test('a process whose command is killed before it is ready hears of it', async () => {
  const note = join(folder, 'note');
  const parent = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { launch } from '#tsnbd/daemon/launch.js';
       await launch(new URL(${JSON.stringify(entry.href)}), { behave: 'wait', note: ${JSON.stringify(note)} }, () => process.exit(9));`,
    ],
    { cwd: fileURLToPath(new URL('../..', import.meta.url)) },
  );
  await new Promise((resolve) => parent.on('exit', resolve));
  await vi.waitFor(() => expect(existsSync(note) && readFileSync(note, 'utf8')).toBe('abandoned'), 10_000);
});
