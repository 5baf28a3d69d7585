import { endWithin } from '../daemon/exit.js';
import { openReadyChannel } from '../daemon/ready.js';
import { claimDevice } from '../kernel/ioctl-device.js';
import { loadLibc } from '../kernel/libc.js';
import { disconnectForeignDevice, disconnectLeftover } from '../kernel/nbd-device.js';
import type { DisconnectTask } from './disconnect.js';

/** What is left of the process when it has done its part gets so long. */
const END_LIMIT_MS = 10_000;

// Disconnects a device that another program set up, or a process of ours that was killed. Such a call can wait for a server that no longer reads, for ever and
// out of any signal's reach; so it is made here, and the command that launched this process goes on without it.
async function disconnect(): Promise<void> {
  const channel = openReadyChannel();
  const task = (await channel.task) as DisconnectTask;
  try {
    loadLibc();
    if (task.how === 'leftover') await disconnectLeftover(task.device, task.leftover);
    else if (task.how === 'claim') claimDevice(task.device);
    else disconnectForeignDevice(task.device, task.how === 'cut');
    await channel.ready();
  } catch (error) {
    await channel.failed(error);
  }
  endWithin(END_LIMIT_MS);
}

void disconnect();
