import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The tests' own programs for the guest, bundled as the shipped ones are (bench-setup.ts). */
export const TEST_PROGRAMS = `${ROOT}build/test-programs`;
