import { endWithin } from '../daemon/exit.js';
import { openReadyChannel } from '../daemon/ready.js';
import { loadLibc } from '../kernel/libc.js';
import { disconnectForeignDevice } from '../kernel/nbd-device.js';

/** What is left of the process when it has done its part gets so long. */
const END_LIMIT_MS = 10_000;

// Disconnects a device that another program set up. Such a call can wait for a server that no longer reads, for ever and
// out of any signal's reach; so it is made here, and the command that launched this process goes on without it.
async function disconnect(): Promise<void> {
  const channel = openReadyChannel();
  const { device, force } = (await channel.task) as { device: string; force: boolean };
  try {
    loadLibc();
    disconnectForeignDevice(device, force);
    await channel.ready();
  } catch (error) {
    await channel.failed(error);
  }
  endWithin(END_LIMIT_MS);
}

void disconnect();
