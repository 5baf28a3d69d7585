import {
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

// What the nbd driver is told by netlink, and what it answers. Pure; the bytes are netlink-codec.ts's.

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

/** What is asked of the family, whose number is not known here. */
export interface NbdQuestion {
  readonly command: number;
  readonly version: number;
  readonly attributes: readonly Attribute[];
}

/** All of it is told every time: what is left out may be the last user's. */
export function connectQuestion(setup: NetlinkDeviceSetup): NbdQuestion {
  const { index, sockets } = setup;
  return question(NBD_CMD_CONNECT, [
    ...(index === undefined ? [] : [{ type: NBD_ATTR_INDEX, value: { u32: index } }]),
    { type: NBD_ATTR_SIZE_BYTES, value: { u64: setup.sizeBytes } },
    { type: NBD_ATTR_BLOCK_SIZE_BYTES, value: { u64: setup.blockSizeBytes } },
    { type: NBD_ATTR_TIMEOUT, value: { u64: setup.requestTimeoutSeconds } },
    { type: NBD_ATTR_DEAD_CONN_TIMEOUT, value: { u64: setup.deadTimeoutSeconds } },
    { type: NBD_ATTR_SERVER_FLAGS, value: { u64: setup.flags } },
    { type: NBD_ATTR_CLIENT_FLAGS, value: { u64: setup.clientFlags } },
    { type: NBD_ATTR_BACKEND_IDENTIFIER, value: { text: setup.identifier } },
    { type: NBD_ATTR_SOCKETS, value: { nested: sockets.map(socketItem) } },
  ]);
}

/** The number of the device that is connected. @throws KernelError 'system' */
export function connectedIndex(answer: ReadonlyMap<number, Uint8Array>): number {
  return attributeInteger(answer, NBD_ATTR_INDEX, 4);
}

export function reconfigureQuestion(index: number, identifier: string, change: DeviceChange): NbdQuestion {
  const { requestTimeoutSeconds, deadTimeoutSeconds, clientFlags, sizeBytes, blockSizeBytes, socket } = change;
  const number = (type: number, u64: number | undefined) => (u64 === undefined ? [] : [{ type, value: { u64 } }]);
  return question(NBD_CMD_RECONFIGURE, [
    { type: NBD_ATTR_INDEX, value: { u32: index } },
    { type: NBD_ATTR_BACKEND_IDENTIFIER, value: { text: identifier } },
    ...number(NBD_ATTR_SIZE_BYTES, sizeBytes),
    ...number(NBD_ATTR_BLOCK_SIZE_BYTES, blockSizeBytes),
    ...number(NBD_ATTR_TIMEOUT, requestTimeoutSeconds),
    ...number(NBD_ATTR_DEAD_CONN_TIMEOUT, deadTimeoutSeconds),
    ...number(NBD_ATTR_CLIENT_FLAGS, clientFlags),
    ...(socket === undefined ? [] : [{ type: NBD_ATTR_SOCKETS, value: { nested: [socketItem(socket)] } }]),
  ]);
}

export function disconnectQuestion(index: number): NbdQuestion {
  return question(NBD_CMD_DISCONNECT, [{ type: NBD_ATTR_INDEX, value: { u32: index } }]);
}

function question(command: number, attributes: readonly Attribute[]): NbdQuestion {
  return { command, version: nbdVersion, attributes };
}

function socketItem(fd: number): Attribute {
  return { type: NBD_SOCK_ITEM, value: { nested: [{ type: NBD_SOCK_FD, value: { u32: fd } }] } };
}
