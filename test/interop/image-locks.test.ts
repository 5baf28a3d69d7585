import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ImageError } from '#tsnbd/image/errors.js';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';

let folder: string;
let image: string;
let ours: OpenedImage | undefined;
let theirs: ChildProcess | undefined;

beforeAll(() => {
  console.log(execFileSync('qemu-nbd', ['--version'], { encoding: 'utf8' }).split('\n')[0]);
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-locks-'));
  image = join(folder, 'disk.raw');
  writeFileSync(image, '');
  truncateSync(image, 1 << 20);
});

afterEach(async () => {
  ours?.close();
  ours = undefined;
  await stopQemu();
  rmSync(folder, { recursive: true });
});

/** qemu-nbd listens before it opens the image: it has it, locked, once a client is served. */
async function qemuServes(...options: string[]): Promise<number> {
  const socket = join(folder, 'socket');
  theirs = spawn('qemu-nbd', ['-t', '-k', socket, ...options, image], { stdio: ['ignore', 'ignore', 'inherit'] });
  for (let i = 0; i < 200 && !existsSync(socket); i += 1) await sleep(50);
  expect(existsSync(socket)).toBe(true);
  await run('nbdinfo', ['--size', `nbd+unix:///?socket=${socket}`]);
  return theirs.pid ?? 0;
}

async function stopQemu(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
  if (theirs === undefined) return;
  const exit = once(theirs, 'exit');
  if (theirs.exitCode === null && theirs.signalCode === null) {
    theirs.kill(signal);
    await exit;
  }
  theirs = undefined;
}

function weOpen(readOnly: boolean): OpenedImage {
  ours = openImage(image, { format: 'raw', readOnly });
  return ours;
}

function weAreRefused(readOnly: boolean): string {
  try {
    weOpen(readOnly);
  } catch (error) {
    if (error instanceof ImageError && error.code === 'in-use') return error.message;
    throw error;
  }
  throw new Error('the image was opened');
}

const run = promisify(execFile);
const qemuWrites = () => run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', image]);
const qemuReads = () => run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 512', image]);
const qemuResizes = () => run('qemu-img', ['resize', '-q', '-f', 'raw', image, '2M']);
const qemuNbd = (...options: string[]) =>
  run('qemu-nbd', [...options, '-f', 'raw', '-k', join(folder, 'second'), image], { timeout: 10_000 });

describe('while qemu-nbd has the image', () => {
  it('for writing, we do not write to it, and say who has it', async () => {
    const pid = await qemuServes('-f', 'raw');
    expect(weAreRefused(false)).toBe(`${image} is in use by qemu-nbd (process ${pid}), which writes to it`);
  });

  it('for writing, we may read, as QEMU lets its own do, and say who writes', async () => {
    const pid = await qemuServes('-f', 'raw');
    await qemuReads();
    expect(weOpen(true).notices).toEqual([
      `${image} is written to by qemu-nbd (process ${pid}): what is read may not fit together`,
    ]);
  });

  it('for reading, we read and write beside it', async () => {
    await qemuServes('-r', '-f', 'raw');
    expect(weOpen(true).notices).toEqual([]);
    ours?.close();
    weOpen(false);
  });

  it('for reading, we open no image for writing that could grow, and say who has it', async () => {
    truncateSync(image, 1_000_001);
    const pid = await qemuServes('-r', '-f', 'raw');
    expect(weAreRefused(false)).toBe(
      `${image} is in use by qemu-nbd (process ${pid}), which lets nobody else resize it`,
    );
    weOpen(true);
  });

  it('as a qcow2, we neither write nor read its bytes', async () => {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
    const pid = await qemuServes('-f', 'qcow2');
    const used = `${image} is in use by qemu-nbd (process ${pid}), which lets nobody else`;
    expect(weAreRefused(false)).toBe(`${used} write to it`);
    expect(weAreRefused(true)).toBe(`${image} is in use by qemu-nbd (process ${pid}), which may resize it`);
  });

  it('the lock ends with it, however it ends', async () => {
    await qemuServes('-f', 'raw');
    weAreRefused(false);
    await stopQemu('SIGKILL');
    weOpen(false);
  });
});

describe('while we have the image', () => {
  const lock = (permission: string) => new RegExp(`Failed to get (shared )?"${permission}" lock`);

  it('for writing, QEMU does not write to it', async () => {
    await qemuWrites();
    weOpen(false);
    await expect(qemuWrites()).rejects.toThrow(lock('write'));
    await expect(qemuNbd()).rejects.toThrow(lock('write'));
    await expect(qemuResizes()).rejects.toThrow(/Failed to get .* lock/);
    ours?.close();
    ours = undefined;
    await qemuWrites();
    await qemuResizes();
  });

  it('for writing, QEMU may read it', async () => {
    weOpen(false);
    await qemuReads();
    await run('qemu-img', ['info', '-f', 'raw', image]);
  });

  it('for writing, and it may grow, qemu-nbd does not even read it', async () => {
    weOpen(false);
    await qemuServes('-r', '-f', 'raw');
    ours?.close();
    await stopQemu();
    truncateSync(image, 1_000_001);
    weOpen(false);
    await expect(qemuNbd('-r')).rejects.toThrow(lock('resize'));
  });

  it('for reading, QEMU reads and writes but does not resize it', async () => {
    weOpen(true);
    await qemuReads();
    await qemuWrites();
    await expect(qemuResizes()).rejects.toThrow(lock('resize'));
  });
});
