import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { directIoAlignment } from '#tsnbd/kernel/direct-io.js';
import { libc } from '#tsnbd/kernel/libc.js';
import { alignedMemory } from '#tsnbd/kernel/memory.js';

it('gives memory whose address is a multiple, as long as was asked for', () => {
  const kept: Buffer[] = [];
  for (const alignment of [512, 4096, 65_536]) {
    for (const length of [1, 4096, 100_001, 1_048_576]) {
      const memory = alignedMemory(length, alignment);
      kept.push(memory);
      expect(memory.length).toBe(length);
      expect(libc.addressOf(memory) % alignment).toBe(0);
    }
  }
  expect(kept.every((memory) => libc.addressOf(memory) % 512 === 0)).toBe(true);
  expect(libc.addressOf(kept[0]?.subarray(1) ?? Buffer.alloc(0)) % 512).toBe(1);
});

it('tells what direct I/O wants of a file, or nothing where nobody does', () => {
  const path = join(tmpdir(), `tsnbd-align-${process.pid}`);
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r');
  const { memoryBytes = 512, offsetBytes = 512 } = directIoAlignment(fd) ?? {};
  closeSync(fd);
  rmSync(path);
  for (const bytes of [memoryBytes, offsetBytes])
    expect([0, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]).toContain(bytes);
  expect(directIoAlignment(99_999)).toBe(undefined);
  const proc = openSync('/proc/version', 'r');
  expect(directIoAlignment(proc)?.offsetBytes ?? 0).toBe(0);
  closeSync(proc);
});
