import { expect } from './errors.js';
import { libc } from './libc.js';
import { RUSAGE_THREAD, STRUCT_RUSAGE } from './libc-abi.js';
import { PlacedBytes } from './memory.js';

const usage = new PlacedBytes(STRUCT_RUSAGE.sizeof);

/** How often this thread has given its processor away by itself, to wait for a disk, a lock or a peer (getrusage(2): ru_nvcsw). */
export function sleepsOfThread(): number {
  expect('look at the usage of a thread', libc.getrusage(RUSAGE_THREAD, usage.address));
  return Number(usage.view.getBigInt64(STRUCT_RUSAGE.ru_nvcsw, true));
}
