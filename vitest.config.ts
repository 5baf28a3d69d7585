import { existsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/** Where scripts/setup --long puts it. */
const NEWER_QEMU = '/usr/local/lib/tsnbd-bench/qemu/usr/bin';
/** Where scripts/setup puts Debian's kernel; what it could not get, it says. */
const MACHINE = '/usr/local/lib/tsnbd-bench/machine';

/**
 * One more than the processors that it is planned for: tests wait, too. The run took 740 s with three and 905 with two, on one
 * day. All projects are one group (sequence.groupOrder): when a group is done, vitest 4.1 sets its workers' numbers free once
 * more after the next one has begun, and two that get the same number would share a guest.
 */
const WORKERS = 3;

const long = process.env.TSNBD_TEST_LONG === '1';

/** `kernel` as in scripts/kernel-bench-kernels.js; absent is the newest. */
const kernelTests = (name: string, kernel?: string) => ({
  test: {
    name,
    // A guest for each (bench-setup.ts).
    maxWorkers: WORKERS,
    env: kernel === undefined ? {} : { TSNBD_BENCH_KERNEL: kernel },
    include: ['test/{kernel,fault}/**/*.test.ts'],
    // The second waits 40 s for the kernel's keepalive, whose options test/transport looks at.
    exclude: long ? [] : ['test/kernel/{boot,dead-client}.test.ts'],
    globalSetup: './test/kernel/bench-setup.ts',
    // A guest on a busy machine can be late for a wait that is bounded; a fault shows twice. The run tells of it.
    retry: 1,
    testTimeout: long ? 7_200_000 : 300_000,
    hookTimeout: 120_000,
  },
});

const interop = {
  maxWorkers: WORKERS,
  // Programs of others, started one after the other: they end in seconds, on a busy machine in minutes.
  testTimeout: long ? 3_600_000 : 300_000,
  // Peers, like guests, can be late on a busy machine. The run tells of it.
  retry: 1,
  hookTimeout: 120_000,
  // Unless told otherwise, a condition has a second.
  expect: { poll: { timeout: 15_000 } },
};

export default defineConfig({
  test: {
    // A process for each file would start, and load what it tests, more than a hundred times: a minute of the run.
    isolate: false,
    reporters: ['default', './test/summary-reporter.ts', './test/standstill-reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          maxWorkers: WORKERS,
          include: [
            'test/{base,protocol,image,transport,server,daemon,kernel-host,attach,mount,cli,bench}/**/*.test.ts',
          ],
          testTimeout: long ? 600_000 : 60_000,
          // What has to come, comes; on a busy machine later than the second that vitest gives it.
          expect: { poll: { timeout: 15_000 } },
        },
      },
      { test: { name: 'interop', ...interop, include: ['test/interop/**/*.test.ts'] } },
      ...(long
        ? [
            {
              test: {
                name: 'interop with a newer QEMU',
                ...interop,
                include: ['test/interop/{qemu-client,image-locks}.test.ts'],
                env: { PATH: `${NEWER_QEMU}:${process.env.PATH}`, TSNBD_NEWER_QEMU: '1' },
              },
            },
          ]
        : []),
      ...(long || existsSync(MACHINE)
        ? [
            {
              test: {
                name: 'virtual machine',
                ...interop,
                include: ['test/virtual-machine/**/*.test.ts'],
                // Its processors are emulated: a minute and a half for what hardly changes.
                exclude: long ? [] : ['test/virtual-machine/{stuck-server,two-processors}.test.ts'],
              },
            },
          ]
        : []),
      kernelTests('kernel'),
      ...(long ? [kernelTests('kernel of Debian 12', 'debian12')] : []),
      {
        test: { name: 'house', maxWorkers: WORKERS, include: ['test/house/**/*.test.ts'], testTimeout: 120_000 },
      },
    ],
  },
});
