import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, ok, until } from './guest.js';
import { expectNothingLeft } from './programs.js';
import { attached, dropStorage, loopDevice, mappedDevice, swapTable } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

const DEPTH = 32;
/** Of a request on the disk: longer than it takes to send as many as there are. */
const DISK_MS = 500;
/** What dm-delay tells that it has: reads, and writes. */
const FULL = { randread: `${DEPTH} 0`, randwrite: `0 ${DEPTH}` } as const;

test.each(['raw', 'qcow2'] as const)(
  'with --cache=none the disk has as many reads and writes of a %s image at a time as the client sends',
  async (format) => {
    const below = await loopDevice('32M');
    if (format === 'qcow2') await ok(`qemu-img create -q -f qcow2 -o preallocation=metadata ${below} 16M`);
    const disk = await mappedDevice('slow', below, `linear ${below} 0`);
    const attachment = await attached(`-f ${format} --cache=none ${disk}`);
    for (const rw of ['randread', 'randwrite'] as const) {
      await swapTable('slow', below, `delay ${below} 0 ${DISK_MS}`);
      const load = `--direct=1 --ioengine=libaio --iodepth=${DEPTH} --bs=4k --rw=${rw} --size=16m --io_size=1m`;
      const fio = await background(`exec fio --filename=/dev/nbd0 --thread --output=/dev/null --name=load ${load}`);
      await until(
        `status=$(dmsetup status slow); echo "$status"; case "$status" in *" delay ${FULL[rw]} "*) ;; *) false ;; esac`,
      );
      // What is held is let go.
      await swapTable('slow', below, `linear ${below} 0`);
      expect((await fio.result).status).toBe(0);
    }
    expect((await attachment.stop()).status).toBe(0);
  },
);
