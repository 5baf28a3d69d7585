import { readFileSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { libc } from '#tsnbd/kernel/libc.js';
import { SCHED_BATCH, SCHED_OTHER, STRUCT_SCHED_PARAM } from '#tsnbd/kernel/libc-abi.js';
import { WakeUps } from '#tsnbd/kernel/wake-ups.js';

const setPolicy = (policy: number) => libc.schedSetscheduler(0, policy, new Uint8Array(STRUCT_SCHED_PARAM.sizeof));
/** Of this thread, as the kernel tells (proc_pid_stat(5): the 41st field; the second one may hold spaces). */
function policy(): number {
  const [, afterName = ''] = readFileSync('/proc/thread-self/stat', 'latin1').split(') ');
  return Number(afterName.split(' ')[41 - 3]);
}

afterEach(() => setPolicy(SCHED_OTHER));

it('wakes without taking the processor from others, until it is to take it again', () => {
  const wakeUps = new WakeUps();
  const policies = ['defer', 'defer', 'takeAtOnce', 'takeAtOnce', 'defer'] as const;
  expect(policies.map((how) => [wakeUps[how](), policy()][1])).toEqual([
    SCHED_BATCH,
    SCHED_BATCH,
    SCHED_OTHER,
    SCHED_OTHER,
    SCHED_BATCH,
  ]);
});

it('leaves a policy alone that another has chosen', () => {
  expect(setPolicy(SCHED_BATCH)).toBe(0);
  const wakeUps = new WakeUps();
  wakeUps.defer();
  expect(policy()).toBe(SCHED_BATCH);
  wakeUps.takeAtOnce();
  expect(policy()).toBe(SCHED_BATCH);
});
