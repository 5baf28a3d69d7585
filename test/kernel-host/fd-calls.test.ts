import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  adviseWillNeed,
  duplicateFd,
  END_OF_FILE,
  fallocate,
  lockByteRead,
  lockByteWrite,
  NEXT_DATA,
  NEXT_HOLE,
  PUNCH_HOLE,
  probeByteLock,
  seek,
  setBlocking,
  shutdownFd,
  socketPair,
  ZERO_RANGE,
} from '#tsnbd/kernel/fd-calls.js';
import { libc } from '#tsnbd/kernel/libc.js';
import { F_GETFL, F_SETFL, O_NONBLOCK } from '#tsnbd/kernel/libc-abi.js';

const fdCalls = fileURLToPath(import.meta.resolve('#tsnbd/kernel/fd-calls.js'));

let folder: string;
let fds: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-fd-'));
  fds = [];
});

afterEach(() => {
  for (const fd of fds) closeSync(fd);
  rmSync(folder, { recursive: true });
});

function own(fd: number): number {
  fds.push(fd);
  return fd;
}

function pair(): readonly [number, number] {
  const [a, b] = socketPair();
  return [own(a), own(b)];
}

describe('sockets', () => {
  it('gives two ends, each of which reads what the other wrote', () => {
    const [a, b] = pair();
    const got = Buffer.alloc(5);
    writeSync(a, 'hello');
    expect(readSync(b, got)).toBe(5);
    expect(got.toString()).toBe('hello');
    writeSync(b, 'world');
    readSync(a, got);
    expect(got.toString()).toBe('world');
  });

  it('keeps its fds from programs that are started', async () => {
    const ends = pair();
    const copy = own(duplicateFd(ends[0]));
    const child = spawn('/bin/sh', ['-c', 'ls -l /proc/$$/fd'], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.on('data', (piece) => {
      text += piece;
    });
    await once(child, 'close');
    expect(text).toContain('/dev/null');
    for (const fd of [...ends, copy]) expect(text).not.toMatch(new RegExp(`\\b${fd} -> socket`));
  });

  it('a copy stays open when the first fd is closed', () => {
    const [a, b] = socketPair();
    own(b);
    const copy = own(duplicateFd(a));
    closeSync(a);
    writeSync(copy, 'x');
    expect(readSync(b, Buffer.alloc(1))).toBe(1);
  });

  it('shutting a socket down wakes a thread that blocks in a read', async () => {
    const [a] = pair();
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
       parentPort.postMessage('reads');
       parentPort.postMessage(require('node:fs').readSync(workerData, Buffer.alloc(1)));`,
      { eval: true, workerData: a },
    );
    await once(worker, 'message');
    await new Promise((resolve) => setTimeout(resolve, 50));
    const read = once(worker, 'message');
    shutdownFd(a);
    expect(await read).toEqual([0]);
    await worker.terminate();
  });

  it('shutting down twice, and after the peer left, is no error', () => {
    const [a, b] = socketPair();
    own(a);
    closeSync(b);
    shutdownFd(a);
    shutdownFd(a);
  });

  it('makes a socket that did not wait wait', () => {
    const [a] = pair();
    const flags = libc.fcntl(a, F_GETFL, 0);
    expect(libc.fcntl(a, F_SETFL, flags | O_NONBLOCK)).toBe(0);
    expect(() => readSync(a, Buffer.alloc(1))).toThrow('EAGAIN');
    setBlocking(a);
    expect(libc.fcntl(a, F_GETFL, 0)).toBe(flags);
  });

  it('says in a sentence what failed', () => {
    expect(() => duplicateFd(99_999)).toThrow('cannot duplicate a file descriptor: bad file descriptor (EBADF)');
  });
});

describe('fallocate', () => {
  it('punches a hole that reads as zeroes and takes no storage', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    writeSync(fd, Buffer.alloc(1 << 20, 0x55));
    const before = fstatSync(fd);
    expect(fallocate(fd, PUNCH_HOLE, 65_536, 131_072)).toBe(0);
    const after = fstatSync(fd);
    expect(after.size).toBe(before.size);
    expect(after.blocks).toBeLessThan(before.blocks);
    const got = Buffer.alloc(131_074);
    readSync(fd, got, 0, got.length, 65_535);
    expect(got[0]).toBe(0x55);
    expect(got.subarray(1, -1).every((byte) => byte === 0)).toBe(true);
    expect(got.at(-1)).toBe(0x55);
  });

  it('zeroes a range, or says that the file system cannot', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    writeSync(fd, Buffer.alloc(65_536, 0x55));
    const result = fallocate(fd, ZERO_RANGE, 0, 4096);
    expect([0, -95]).toContain(result);
    const got = Buffer.alloc(1);
    readSync(fd, got, 0, 1, 4095);
    expect(got[0]).toBe(result === 0 ? 0 : 0x55);
  });

  it('takes offsets beyond 4 GiB and answers an errno for what is no file', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    expect(fallocate(fd, 0, 5 * 2 ** 32, 4096)).toBe(0);
    expect(fstatSync(fd).size).toBe(5 * 2 ** 32 + 4096);
    expect(fallocate(99_999, PUNCH_HOLE, 0, 1)).toBe(-9);
    expect(fallocate(fd, PUNCH_HOLE, 0, 0)).toBe(-22);
  });
});

describe('seek', () => {
  it('finds data, holes and the end, beyond 4 GiB too', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    const far = 2 ** 42;
    writeSync(fd, Buffer.alloc(65_536, 1), 0, 65_536, far);
    expect(seek(fd, 0, NEXT_DATA)).toBe(far);
    expect(seek(fd, far + 1, NEXT_DATA)).toBe(far + 1);
    expect(seek(fd, far, NEXT_HOLE)).toBe(far + 65_536);
    expect(seek(fd, 5, NEXT_HOLE)).toBe(5);
    expect(seek(fd, 0, END_OF_FILE)).toBe(far + 65_536);
  });

  it('answers ENXIO where nothing follows, and an errno for what is no file', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    writeSync(fd, 'x');
    expect(seek(fd, 1, NEXT_DATA)).toBe(-6);
    expect(seek(fd, 1, NEXT_HOLE)).toBe(-6);
    expect(seek(99_999, 0, NEXT_DATA)).toBe(-9);
    expect(seek(pair()[0], 0, NEXT_DATA)).toBe(-29);
  });

  it('leaves reads and writes that name their offset alone', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    writeSync(fd, 'abcdef', 0);
    seek(fd, 0, END_OF_FILE);
    const got = Buffer.alloc(2);
    expect(readSync(fd, got, 0, 2, 1)).toBe(2);
    expect(got.toString()).toBe('bc');
  });
});

it('the kernel takes a hint that a range will be read, and says what is no file', () => {
  const fd = own(openSync(join(folder, 'image'), 'w+'));
  writeSync(fd, Buffer.alloc(65_536));
  expect(adviseWillNeed(fd, 4096, 8192)).toBe(0);
  expect(adviseWillNeed(fd, 2 ** 42, 8192)).toBe(0);
  expect(adviseWillNeed(99_999, 0, 8192)).toBe(-9);
});

describe('locks', () => {
  it('are shared between readers, seen by a probe, and gone when the last fd is closed', () => {
    const path = join(folder, 'image');
    const first = openSync(path, 'w+');
    const second = own(openSync(path, 'r'));
    expect(lockByteRead(first, 201)).toBe(true);
    expect(lockByteRead(second, 201)).toBe(true);
    expect(probeByteLock(second, 201)).toBe(true);
    expect(probeByteLock(second, 200)).toBe(false);
    expect(probeByteLock(second, 202)).toBe(false);
    const copy = duplicateFd(first);
    closeSync(first);
    expect(probeByteLock(second, 201)).toBe(true);
    closeSync(copy);
    expect(probeByteLock(second, 201)).toBe(false);
  });

  it('an exclusive lock goes with no other on the byte, and ends with its open file', () => {
    const path = join(folder, 'image');
    const [first, second] = [openSync(path, 'w+'), openSync(path, 'r+')];
    expect(lockByteWrite(first, 2 ** 48)).toBe(true);
    expect(lockByteWrite(second, 2 ** 48)).toBe(false);
    expect(lockByteRead(second, 2 ** 48)).toBe(false);
    expect(lockByteWrite(second, 2 ** 48 + 1)).toBe(true);
    closeSync(first);
    expect(lockByteWrite(second, 2 ** 48)).toBe(true);
    closeSync(second);
  });

  it('a probe does not see the own lock', () => {
    const fd = own(openSync(join(folder, 'image'), 'w+'));
    lockByteRead(fd, 100);
    expect(probeByteLock(fd, 100)).toBe(false);
  });

  it('are refused while another program holds the byte exclusively', async () => {
    const path = join(folder, 'image');
    const fd = own(openSync(path, 'w+'));
    // Python is not at hand everywhere; a second Node asks for the write lock through the same door to C.
    const holder = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { openSync } from 'node:fs';
         import { libc } from ${JSON.stringify(fdCalls.replace('fd-calls', 'libc'))};
         const lock = new Uint8Array(32);
         lock[0] = 1; lock[8] = 100; lock[16] = 1;
         console.log(libc.fcntlLock(openSync(process.argv[1], 'r+'), 37, lock));
         setInterval(() => {}, 1000);`,
        path,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    try {
      const [answer] = await once(holder.stdout, 'data');
      expect(String(answer)).toBe('0\n');
      expect(lockByteRead(fd, 100)).toBe(false);
      expect(probeByteLock(fd, 100)).toBe(true);
      expect(lockByteRead(fd, 101)).toBe(true);
    } finally {
      holder.kill('SIGKILL');
      await once(holder, 'close');
    }
  });
});

it('_exit ends a process whose worker blocks for ever', async () => {
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { Worker } from 'node:worker_threads';
       import { exitNow, socketPair } from ${JSON.stringify(fdCalls)};
       const worker = new Worker("require('node:worker_threads').parentPort.postMessage('');" +
         "require('node:fs').readSync(require('node:worker_threads').workerData, Buffer.alloc(1))",
         { eval: true, execArgv: [], workerData: socketPair()[0] });
       worker.on('message', () => setTimeout(() => exitNow(42), 50));`,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  expect(await once(child, 'close')).toEqual([42, null]);
});

it('leaves no fd open', () => {
  const open = (): number => readdirSync('/proc/self/fd').length;
  const before = open();
  for (const fd of socketPair()) closeSync(fd);
  expect(open()).toBe(before);
});
