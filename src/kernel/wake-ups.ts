import { libc } from './libc.js';
import { SCHED_BATCH, SCHED_OTHER, STRUCT_SCHED_PARAM } from './libc-abi.js';

const THIS_THREAD = 0;
/** The only priority that either policy has. */
const noPriority = new Uint8Array(STRUCT_SCHED_PARAM.sizeof);

/**
 * Whether the calling thread, when it is woken, takes the processor from the thread that runs there, or lets that run on for
 * its share (sched(7): SCHED_BATCH). Where somebody has chosen a policy for it, that stays.
 */
export class WakeUps {
  #deferred = false;

  defer(): void {
    if (this.#deferred || libc.schedGetscheduler(THIS_THREAD) !== SCHED_OTHER) return;
    this.#deferred = libc.schedSetscheduler(THIS_THREAD, SCHED_BATCH, noPriority) === 0;
  }

  takeAtOnce(): void {
    if (!this.#deferred) return;
    libc.schedSetscheduler(THIS_THREAD, SCHED_OTHER, noPriority);
    this.#deferred = false;
  }
}
