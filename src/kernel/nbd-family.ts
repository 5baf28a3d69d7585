import { constants } from 'node:os';
import { deviceIndex } from './device-name.js';
import { KernelError } from './errors.js';
import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_ATTR_MAXATTR,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
  NBD_ATTR_BACKEND_IDENTIFIER,
  NBD_ATTR_BLOCK_SIZE_BYTES,
  NBD_ATTR_CLIENT_FLAGS,
  NBD_ATTR_DEAD_CONN_TIMEOUT,
  NBD_ATTR_INDEX,
  NBD_ATTR_SERVER_FLAGS,
  NBD_ATTR_SIZE_BYTES,
  NBD_ATTR_SOCKETS,
  NBD_ATTR_TIMEOUT,
  NBD_CMD_CONNECT,
  NBD_CMD_DISCONNECT,
  NBD_CMD_RECONFIGURE,
  NBD_SOCK_FD,
  NBD_SOCK_ITEM,
} from './netlink-abi.js';
import { type Attribute, attributeInteger } from './netlink-codec.js';
import { describeReply, type NetlinkReply, NetlinkSocket } from './netlink-socket.js';
import { devicesWithBackend } from './sysfs.js';

const { ENOENT } = constants.errno;

/** Nobody waits longer for the lock of generic netlink (netlink-socket.ts). */
const answerLimitMs = 10_000;
const controlVersion = 2;
const nbdVersion = 1;

/** What CONNECT tells the kernel of a device. */
export interface NetlinkDeviceSetup {
  /** Absent: the kernel takes a free device, and makes one where there is none. */
  readonly index: number | undefined;
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  /** The transmission flags of the negotiation. */
  readonly flags: number;
  readonly requestTimeoutSeconds: number;
  /** How long requests wait for another connection when the last one is lost; 0 is not at all. */
  readonly deadTimeoutSeconds: number;
  readonly sockets: readonly number[];
  /** NBD_CFLAG_*. */
  readonly clientFlags: number;
  /** What sysfs shows as `backend`. */
  readonly identifier: string;
}

/** What RECONFIGURE tells the kernel; what is absent stays. */
export type DeviceChange = Partial<
  Pick<
    NetlinkDeviceSetup,
    'requestTimeoutSeconds' | 'deadTimeoutSeconds' | 'clientFlags' | 'sizeBytes' | 'blockSizeBytes'
  >
> & {
  readonly socket?: number;
};

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
   * Sets a device up and starts it. All of it is told every time: what is left out may be the last user's. Answers its
   * number, or what the kernel says instead.
   *
   * @throws KernelError 'time-limit' or 'system'
   */
  async connect(setup: NetlinkDeviceSetup): Promise<{ readonly index: number } | NetlinkReply> {
    const { index, sockets } = setup;
    const reply = await this.#socket.ask(
      this.#question(NBD_CMD_CONNECT, [
        ...(index === undefined ? [] : [{ type: NBD_ATTR_INDEX, value: { u32: index } }]),
        { type: NBD_ATTR_SIZE_BYTES, value: { u64: setup.sizeBytes } },
        { type: NBD_ATTR_BLOCK_SIZE_BYTES, value: { u64: setup.blockSizeBytes } },
        { type: NBD_ATTR_TIMEOUT, value: { u64: setup.requestTimeoutSeconds } },
        { type: NBD_ATTR_DEAD_CONN_TIMEOUT, value: { u64: setup.deadTimeoutSeconds } },
        { type: NBD_ATTR_SERVER_FLAGS, value: { u64: setup.flags } },
        { type: NBD_ATTR_CLIENT_FLAGS, value: { u64: setup.clientFlags } },
        { type: NBD_ATTR_BACKEND_IDENTIFIER, value: { text: setup.identifier } },
        { type: NBD_ATTR_SOCKETS, value: { nested: sockets.map(socketItem) } },
      ]),
      answerLimitMs,
    );
    if (reply.errno !== 0) return reply;
    // Without memory for its message the kernel connects all the same (nbd_connect_reply): then the mark tells which, unless
    // the user gave it to two.
    const [marked, another] = reply.attributes === undefined ? devicesWithBackend(setup.identifier) : [];
    const connected =
      reply.attributes !== undefined
        ? attributeInteger(reply.attributes, NBD_ATTR_INDEX, 4)
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
    const { requestTimeoutSeconds, deadTimeoutSeconds, clientFlags, sizeBytes, blockSizeBytes, socket } = change;
    const number = (type: number, u64: number | undefined) => (u64 === undefined ? [] : [{ type, value: { u64 } }]);
    const question = this.#question(NBD_CMD_RECONFIGURE, [
      { type: NBD_ATTR_INDEX, value: { u32: index } },
      { type: NBD_ATTR_BACKEND_IDENTIFIER, value: { text: identifier } },
      ...number(NBD_ATTR_SIZE_BYTES, sizeBytes),
      ...number(NBD_ATTR_BLOCK_SIZE_BYTES, blockSizeBytes),
      ...number(NBD_ATTR_TIMEOUT, requestTimeoutSeconds),
      ...number(NBD_ATTR_DEAD_CONN_TIMEOUT, deadTimeoutSeconds),
      ...number(NBD_ATTR_CLIENT_FLAGS, clientFlags),
      ...(socket === undefined ? [] : [{ type: NBD_ATTR_SOCKETS, value: { nested: [socketItem(socket)] } }]),
    ]);
    return this.#socket.askOnce(question);
  }

  /**
   * Says goodbye to the server and ends the device, whoever set it up; one that is down already is no error. Waits, maybe
   * for ever, for who sends into a full socket: shutting the socket down ends that. `onBegin` is called when it begins to.
   */
  disconnect(index: number, onBegin?: () => void): Promise<NetlinkReply> {
    const question = this.#question(NBD_CMD_DISCONNECT, [{ type: NBD_ATTR_INDEX, value: { u32: index } }]);
    return this.#socket.askInThread(question, onBegin);
  }

  close(): void {
    this.#socket.close();
  }

  #question(command: number, attributes: readonly Attribute[]) {
    return { family: this.#id, command, version: nbdVersion, attributes };
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

function socketItem(fd: number): Attribute {
  return { type: NBD_SOCK_ITEM, value: { nested: [{ type: NBD_SOCK_FD, value: { u32: fd } }] } };
}
