import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The tests' own programs for the guest, bundled as the shipped ones are (bench-setup.ts). */
export const TEST_PROGRAMS = `${ROOT}build/test-programs`;
/** A library that kills at a chosen call (test/fault/drivers/kill-at-call.c). */
export const KILL_AT_CALL = `${TEST_PROGRAMS}/kill-at-call.so`;
/** A library by which Node gets its memory at once (populated-memory.c). */
export const POPULATED_MEMORY = `${TEST_PROGRAMS}/populated-memory.so`;
