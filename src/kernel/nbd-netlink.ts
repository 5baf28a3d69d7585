import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { UndoStack } from '../base/undo.js';
import { connectError } from './device-errors.js';
import { deviceIndex, deviceName } from './device-name.js';
import { newIdentifier } from './device-owner.js';
import { KernelError } from './errors.js';
import { shutdownFd } from './fd-calls.js';
import type { DeviceChoice, DeviceSetup, NbdDevice } from './nbd-device.js';
import { NbdFamily } from './nbd-family.js';
import { NBD_CFLAG_DESTROY_ON_DISCONNECT } from './netlink-abi.js';
import { NetlinkDevice } from './netlink-device.js';
import { isSentAgain, sendAgainSoon } from './resend.js';
import { deviceBackend, deviceState, setLongestRequest } from './sysfs.js';

const { EBUSY } = constants.errno;

/** Whoever looks at a new or a changed device (udev) has it open for so long at most. */
const busyLimitMs = 5_000;
const busyPollMs = 20;

/**
 * The set-up by netlink: one call. Without a `name` the kernel chooses; a device that is not there yet it makes. The
 * longest request is bounded before, where the device is known, for its first reader comes at once.
 */
export async function connectByNetlink(
  choice: DeviceChoice,
  setup: DeviceSetup,
  undo: UndoStack,
  family: NbdFamily,
): Promise<NbdDevice> {
  const name = choice.device;
  const isThere = name !== undefined && deviceState(name).exists;
  if (isThere) await boundRequests(name, setup, undo);
  const device = await undo.step(
    'connect the device',
    () => connect(choice, setup, family),
    (connected) => connected.stop(),
  );
  if (!isThere) await boundRequests(device.name, setup, undo);
  if (isSentAgain(setup)) await undo.step('set the request timer', () => sendAgainSoon(setup, device.name));
  return device;
}

function boundRequests(name: string, setup: DeviceSetup, undo: UndoStack): Promise<void> {
  return undo.step(
    'set the longest request',
    () => setLongestRequest(name, setup.requestBytesMax),
    () => {
      if (deviceState(name).exists) setLongestRequest(name, undefined);
    },
  );
}

async function connect(choice: DeviceChoice, setup: DeviceSetup, family: NbdFamily): Promise<NetlinkDevice> {
  const { device: name, identifier = newIdentifier(setup.unattended) } = choice;
  const clientFlags = choice.destroyOnDisconnect ? NBD_CFLAG_DESTROY_ON_DISCONNECT : 0;
  const index = name === undefined ? undefined : deviceIndex(name);
  const { deadTimeoutSeconds } = setup;
  try {
    for (const end = performance.now() + busyLimitMs; ; await sleep(busyPollMs)) {
      const told = { ...setup, index, identifier, clientFlags, deadTimeoutSeconds: deadTimeoutSeconds ?? 0 };
      const reply = await family.connect(told);
      if ('index' in reply)
        return new NetlinkDevice(deviceName(reply.index), family, setup, { identifier, clientFlags });
      // Without a pid it is not up: somebody has it open for a moment.
      const passes = reply.errno === EBUSY && name !== undefined && deviceState(name).pid === undefined;
      if (!passes || performance.now() > end) throw connectError(name, setup, reply);
    }
  } catch (error) {
    // A call that was given up may come to be done: then the device is to have no connection that works.
    for (const socket of setup.sockets) shutdownFd(socket);
    throw error;
  }
}

/**
 * A device that another process of ours set up, for this one to answer for. `setup` has copies of its sockets.
 *
 * @throws KernelError 'refused' where it is not that device any more, 'time-limit' or 'system'
 */
export async function adoptDevice(
  name: string,
  setup: DeviceSetup,
  identifier: string,
  destroyOnDisconnect: DeviceChoice['destroyOnDisconnect'],
): Promise<NetlinkDevice> {
  const family = await NbdFamily.find();
  if (family === undefined) throw new KernelError('refused', 'this network namespace has no netlink for nbd');
  const clientFlags = destroyOnDisconnect ? NBD_CFLAG_DESTROY_ON_DISCONNECT : 0;
  if (deviceBackend(name) === identifier) return new NetlinkDevice(name, family, setup, { identifier, clientFlags });
  family.close();
  throw new KernelError('refused', `/dev/${name} is not the device any more that it was`);
}
