import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DIRECT_FILE_READ_BYTES_MAX, FILE_READ_BYTES_MAX, FILE_READS_MAX, FileReads } from '#tsnbd/image/file-reads.js';
import { makePipe, type Pipe } from '#tsnbd/kernel/pipe-calls.js';
import { waitReadable } from '#tsnbd/kernel/socket-calls.js';

const FILE_BYTES = 2_000_100;
const content = Buffer.alloc(FILE_BYTES);
for (let at = 0; at + 4 <= FILE_BYTES; at += 4) content.writeUInt32LE(at, at);
let folder: string;
let fd: number;
let reads: FileReads;
let pipes: Pipe[];
/** Ranges on their way by ticket, and the tickets that were told of since. */
const asked = new Map<number, readonly [number, number]>();
let told: { ticket: number; isThere: boolean }[];

function tell(ticket: number, at: number): void {
  const [offset, length] = asked.get(ticket) ?? [0, -1];
  expect(asked.delete(ticket)).toBe(true);
  told.push({ ticket, isThere: at >= 0 });
  if (at < 0) return;
  expect(reads.bytes.subarray(at, at + length).equals(content.subarray(offset, offset + length))).toBe(true);
}

function begin(offset: number, length: number, blockBytes = 1, fileFd = fd): number {
  const ticket = reads.begin({ fd: fileFd, blockBytes, offsetBytes: offset }, length);
  if (ticket >= 0) asked.set(ticket, [offset, length]);
  return ticket;
}

/** A pipe: a read of it is on its way until something is written. */
function slow(): Pipe {
  const pipe = makePipe();
  if (pipe === undefined) throw new Error('no pipe');
  pipes.push(pipe);
  return pipe;
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-reads-'));
  writeFileSync(join(folder, 'file'), content);
  fd = openSync(join(folder, 'file'), 'r');
  const opened = FileReads.open();
  if (opened === undefined) throw new Error('this kernel has no io_uring');
  reads = opened;
  pipes = [];
  told = [];
  asked.clear();
});
afterEach(() => {
  for (const { writeFd } of pipes) closeSync(writeFd);
  reads.take(FILE_READS_MAX, () => {});
  reads.close();
  for (const { readFd } of pipes) closeSync(readFd);
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

describe.each([1, 512, 4_096])('reads of a file of blocks of %i bytes', (blockBytes) => {
  test('bring the bytes asked for, wherever they begin and end', () => {
    const lengthMax = blockBytes === 1 ? FILE_READ_BYTES_MAX : DIRECT_FILE_READ_BYTES_MAX;
    let full = 0;
    for (let n = 0; n < 600; n += 1) {
      const offset = (n * 7_919) % 900_000;
      const length = 1 + ((n * 104_729) % lengthMax);
      while (begin(offset, length, blockBytes) < 0) {
        full += 1;
        const before = told.length;
        reads.take(1, tell);
        expect(told.length).toBeGreaterThan(before);
      }
      if (n % 100 === 0) reads.take(0, tell);
    }
    reads.take(FILE_READS_MAX, tell);
    expect(asked.size).toBe(0);
    expect(told).toHaveLength(600);
    expect(told.every(({ isThere }) => isThere)).toBe(true);
    expect(full).toBeGreaterThan(0);
  });
});

describe('a read', () => {
  test('that takes long holds up no other', () => {
    const { readFd, writeFd } = slow();
    const first = begin(0, 512, 1, readFd);
    const second = begin(4_096, 512);
    reads.take(1, tell);
    expect(told).toEqual([{ ticket: second, isThere: true }]);
    reads.take(0, tell);
    writeSync(writeFd, content, 0, 512);
    expect(waitReadable(reads.readableFd, 10_000)).toBe(1);
    reads.take(0, tell);
    expect(told[1]).toEqual({ ticket: first, isThere: true });
  });

  test('has its memory for itself until it is told of', () => {
    const { readFd, writeFd } = slow();
    const first = begin(0, 4_096, 1, readFd);
    for (let n = 0; n < 3 * FILE_READS_MAX; n += 1) {
      const offset = 4_096 * (1 + (n % 100));
      while (begin(offset, 4_096) < 0) reads.take(1, tell);
    }
    writeSync(writeFd, content, 0, 4_096);
    reads.take(FILE_READS_MAX, tell);
    expect(told.find(({ ticket }) => ticket === first)).toMatchObject({ isThere: true });
    expect(told).toHaveLength(3 * FILE_READS_MAX + 1);
  });

  test('of more than is there, or that fails, brings nothing', () => {
    begin(FILE_BYTES - 100, 200);
    begin(FILE_BYTES + 4_096, 512);
    const closed = slow();
    begin(0, 512, 1, closed.writeFd); // EBADF: it is for writing
    reads.take(FILE_READS_MAX, tell);
    expect(told.map(({ isThere }) => isThere)).toEqual([false, false, false]);
  });

  test('is right after the memory was given back', () => {
    begin(0, 4_096);
    reads.relax(); // nothing: a read is on its way
    reads.take(1, tell);
    reads.relax();
    begin(512, 4_096);
    reads.take(1, tell);
    expect(told.map(({ isThere }) => isThere)).toEqual([true, true]);
  });
});

test('are told of a few at a time, if that is asked for, and none is forgotten', () => {
  const tickets = [0, 4_096, 8_192].map((offset) => begin(offset, 4_096));
  reads.take(0, tell, 0);
  for (const count of [1, 2, 3]) {
    expect(waitReadable(reads.readableFd, 10_000)).toBe(1);
    reads.take(0, tell, 1);
    expect(told.length).toBe(count);
  }
  expect(told.map(({ ticket }) => ticket).sort()).toEqual(tickets);
});
