import { readSync } from 'node:fs';
import { waitReadable } from '#tsnbd/kernel/socket-calls.js';

const LIMIT_MS = 10_000;

/** Reads into `bytes` from `at` on what a blocking fd has, 0 at its end. Nothing would end a test that waits for ever in a read. */
export function readSoon(fd: number, bytes: Buffer, at: number): number {
  if (waitReadable(fd, LIMIT_MS) !== 1) throw new Error(`nothing came in ${LIMIT_MS / 1_000} s, at byte ${at}`);
  return readSync(fd, bytes, at, bytes.length - at, null);
}
