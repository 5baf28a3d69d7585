import { constants } from 'node:os';
import { deviceIndex } from './device-name.js';
import { KernelError } from './errors.js';
import {
  connectedIndex,
  connectQuestion,
  type DeviceChange,
  disconnectQuestion,
  type NetlinkDeviceSetup,
  reconfigureQuestion,
} from './nbd-messages.js';
import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_ATTR_MAXATTR,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
  NBD_ATTR_BACKEND_IDENTIFIER,
} from './netlink-abi.js';
import { attributeInteger } from './netlink-codec.js';
import { describeReply, type NetlinkReply, NetlinkSocket } from './netlink-socket.js';
import { devicesWithBackend } from './sysfs.js';

const { ENOENT } = constants.errno;

/** Nobody waits longer for the lock of generic netlink (netlink-socket.ts). */
const answerLimitMs = 10_000;
const controlVersion = 2;

/** The generic netlink family of the nbd driver, as it is found in this network namespace. */
export class NbdFamily {
  readonly #socket: NetlinkSocket;
  readonly #id: number;

  /**
   * Absent where this network namespace does not have it, or where it cannot mark a device as ours (before Linux 5.14).
   * Whoever gets it closes it.
   *
   * @throws KernelError 'time-limit' or 'system'
   */
  static async find(): Promise<NbdFamily | undefined> {
    const socket = new NetlinkSocket();
    try {
      const found = await findFamily(socket, 'nbd');
      if (found !== undefined && canMark(found.attributeMax)) return new NbdFamily(socket, found.id);
    } catch (error) {
      socket.close();
      throw error;
    }
    socket.close();
    return undefined;
  }

  private constructor(socket: NetlinkSocket, id: number) {
    this.#socket = socket;
    this.#id = id;
  }

  /**
   * Sets a device up and starts it. Answers its number, or what the kernel says instead.
   *
   * @throws KernelError 'time-limit' or 'system'
   */
  async connect(setup: NetlinkDeviceSetup): Promise<{ readonly index: number } | NetlinkReply> {
    const reply = await this.#socket.ask({ family: this.#id, ...connectQuestion(setup) }, answerLimitMs);
    if (reply.errno !== 0) return reply;
    // Without memory for its message the kernel connects all the same (nbd_connect_reply): then the mark tells which, unless
    // the user gave it to two.
    const [marked, another] = reply.attributes === undefined ? devicesWithBackend(setup.identifier) : [];
    const connected =
      reply.attributes !== undefined
        ? connectedIndex(reply.attributes)
        : marked !== undefined && another === undefined
          ? deviceIndex(marked)
          : undefined;
    if (connected === undefined) throw new KernelError('system', 'the kernel does not tell which device it connected');
    return { index: connected };
  }

  /**
   * Changes a device that is up. A socket takes the place of a connection that is lost; where the kernel knows of none that
   * is, nothing happens, and the answer is the same. It is not given up, for then it could be done late: beside the next
   * one, or with another socket that has the number by then.
   *
   * @throws KernelError 'system'
   */
  reconfigure(index: number, identifier: string, change: DeviceChange): Promise<NetlinkReply> {
    return this.#socket.askOnce({ family: this.#id, ...reconfigureQuestion(index, identifier, change) });
  }

  /**
   * Says goodbye to the server and ends the device, whoever set it up; one that is down already is no error. Waits, maybe
   * for ever, for who sends into a full socket: shutting the socket down ends that. `onBegin` is called when it begins to.
   */
  disconnect(index: number, onBegin?: () => void): Promise<NetlinkReply> {
    return this.#socket.askInThread({ family: this.#id, ...disconnectQuestion(index) }, onBegin);
  }

  close(): void {
    this.#socket.close();
  }
}

/** The number of a family, by which it is asked, and the highest attribute that it knows. Absent where there is none. */
export async function findFamily(
  socket: NetlinkSocket,
  name: string,
): Promise<{ readonly id: number; readonly attributeMax: number } | undefined> {
  const reply = await socket.ask(
    {
      family: GENL_ID_CTRL,
      command: CTRL_CMD_GETFAMILY,
      version: controlVersion,
      attributes: [{ type: CTRL_ATTR_FAMILY_NAME, value: { text: name } }],
    },
    answerLimitMs,
  );
  if (reply.errno === ENOENT) return undefined;
  if (reply.errno !== 0 || reply.attributes === undefined) {
    throw new KernelError('system', `the kernel does not tell its netlink families: ${describeReply(reply)}`);
  }
  return {
    id: attributeInteger(reply.attributes, CTRL_ATTR_FAMILY_ID, 2),
    attributeMax: attributeInteger(reply.attributes, CTRL_ATTR_MAXATTR, 4),
  };
}

/** A family that tells no highest attribute (0) has one for each command, as only newer kernels have. */
function canMark(attributeMax: number): boolean {
  return attributeMax === 0 || attributeMax >= NBD_ATTR_BACKEND_IDENTIFIER;
}
