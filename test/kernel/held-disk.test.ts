import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, ok, until } from './guest.js';
import { expectNothingLeft } from './programs.js';
import { attached, dropStorage, loopDevice, mappedDevice } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

const HELD_SECONDS = 0.3;
const FLUSH =
  'head -c 65536 /dev/urandom >/tmp/held.data && dd if=/tmp/held.data of=/dev/nbd0 bs=64k oflag=direct status=none && sync /dev/nbd0';
const READ = 'dd if=/dev/nbd0 bs=64k count=1 iflag=direct status=none | cmp -s - /tmp/held.data';
/** What was written is there at last. */
const SEEN = `for try in $(seq 100); do ${READ} && break; sleep 0.05; done; ${READ}`;

/** While the disk does nothing, `begun` does not come to its end, though `beside` does; once the disk goes on it does. */
async function expectHeld(begun: string, beside = 'true'): Promise<void> {
  const hold = 'dmsetup suspend --nolockfs --noflush held';
  const goOn = 'dmsetup resume held';
  await ok(`rm -f /tmp/held.done; ${hold} && { (${begun} && touch /tmp/held.done) >/dev/null 2>&1 & }`);
  try {
    await ok(`sleep ${HELD_SECONDS} && { ${beside}; } && sleep ${HELD_SECONDS} && test ! -e /tmp/held.done`);
  } finally {
    await ok(goOn);
  }
  await until('test -e /tmp/held.done');
}

// Of writes with FUA, which wait for their call, the trace of durable-replies.test.ts tells all.
test('a FLUSH is answered when the disk has done it, and not before, as a call and beside other requests', async () => {
  const below = await loopDevice('16M');
  const attachment = await attached(await mappedDevice('held', below, `linear ${below} 0`));
  const rings = () => ok(`ls -l /proc/${attachment.pid}/fd | grep -c io_uring; true`);
  // The first is a call that waits.
  await expectHeld(FLUSH);
  // After others that took long it goes on beside other requests.
  await ok(`${FLUSH} && ${FLUSH}`);
  expect(await rings()).toBe('1');
  await expectHeld(FLUSH, SEEN);
  await ok('rm /tmp/held.*');
  expect((await attachment.stop()).status).toBe(0);
});
