import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { DeviceSetup, NbdDevice } from '../kernel/nbd-device.js';
import type { ExportInfo } from '../protocol/export-info.js';
import { addressInWords } from '../transport/address.js';
import { connect } from '../transport/connect.js';
import { deadlineAfter } from '../transport/deadline.js';
import { detachFd } from '../transport/detach-fd.js';
import type { AttachContext } from './attach-context.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { type Attachment, bringUp } from './attachment.js';
import { CONNECT_LIMIT_MS } from './connect-limit.js';
import { AttachError } from './errors.js';
import { describeExport, isAnswering, negotiate } from './query.js';
import { type ConnectionSource, Supervisor } from './reconnect.js';
import { chooseRemoteSetup, inFull, requireUnchanged, untoldExport } from './remote-setup.js';

/** The connection that a device has now: its fd, and how much the export had when it was negotiated, for servers go by that. */
interface Connection {
  socketFd: number;
  exportBytes: number;
}

/** Attaches a server's export: connect, negotiate, hand the socket to the kernel, wait until the device is usable. */
export async function attachRemote(request: RemoteAttachRequest, context: AttachContext): Promise<Attachment> {
  const { undo, onEvent, stop } = context;
  const deadline = deadlineAfter(CONNECT_LIMIT_MS, stop);
  const { address, exportName } = request;
  const socket = await undo.step(
    'connect to the server',
    () => connect(address, deadline),
    (connected) => void connected.destroy(),
  );
  const found = await undo.step('negotiate', () => learn(socket, request, deadline));
  onEvent({ kind: 'negotiated', sizeBytes: found.sizeBytes });

  const chosen = chooseRemoteSetup(request, found);
  for (const text of chosen.notices) onEvent({ kind: 'notice', text });
  const connection: Connection = await undo.step(
    'take the socket from the event loop',
    async () => ({ socketFd: await detachFd(socket), exportBytes: found.sizeBytes }),
    ({ socketFd }) => closeSync(socketFd),
  );
  const deadTimeoutSeconds = request.persist === 'no' ? undefined : request.deadTimeoutSeconds;
  const { unattended } = request;
  const setup = { ...chosen.setup, sockets: [connection.socketFd], deadTimeoutSeconds, unattended };
  /** Its size changes with the device's. */
  const known = { ...setup };
  const about = { kind: 'remote', address, exportName, sizeBytes: setup.sizeBytes, forMounts: request.forMounts };
  const supervise = (device: NbdDevice) => {
    if (device.link === undefined && request.persist === 'required') throw needsNetlink();
    if (device.link === undefined) {
      if (request.persist !== 'no') onEvent({ kind: 'notice', text: goesDown });
      return undefined;
    }
    return new Supervisor(device, device.link, connections(request, known, connection), request, onEvent);
  };
  const resizing = {
    availableBytes: async () => {
      if (request.handshake === 'none') throw new AttachError('refused', 'its server does not tell its size');
      const { info } = await describeExport({ address, exportName });
      requireUnchanged({ ...known, sizeBytes: 0 }, chooseRemoteSetup(inFull(request), info).setup);
      return info.sizeBytes;
    },
    reachableBytes: () => connection.exportBytes,
    resized: (sizeBytes: number) => {
      known.sizeBytes = sizeBytes;
    },
  };
  return bringUp(request, setup, about, context, { supervise, resizing });
}

function connections(request: RemoteAttachRequest, setup: DeviceSetup, connection: Connection): ConnectionSource {
  const { address, exportName } = request;
  let offeredBytes = connection.exportBytes;
  return {
    server: addressInWords(address),
    renew: async (stop) => {
      const { socketFd, exportBytes } = await renew(request, setup, stop);
      offeredBytes = exportBytes;
      return socketFd;
    },
    isAnswering: (stop) => isAnswering({ address, exportName }, deadlineAfter(CONNECT_LIMIT_MS, stop)),
    replaced: (socketFd) => {
      closeSync(connection.socketFd);
      connection.socketFd = socketFd;
      connection.exportBytes = offeredBytes;
    },
    discard: closeSync,
  };
}

/** Negotiates for the export; without a negotiation all that is known is what the user says. */
async function learn(socket: Socket, request: RemoteAttachRequest, deadline: AbortSignal): Promise<ExportInfo> {
  const { exportName, handshake } = request;
  if (handshake === 'none') return untoldExport(request);
  const goal = { kind: 'go', exportName, byExportName: handshake === 'export-name' } as const;
  return (await negotiate(socket, goal, 'transmission', deadline)).export;
}

/** Another connection of the export that a device was set up with. */
async function renew(request: RemoteAttachRequest, setup: DeviceSetup, stop: AbortSignal): Promise<Connection> {
  const deadline = deadlineAfter(CONNECT_LIMIT_MS, stop);
  const socket = await connect(request.address, deadline);
  try {
    const found = await learn(socket, request, deadline);
    const wanted = { ...inFull(request), blockSizeBytes: setup.blockSizeBytes };
    requireUnchanged(setup, chooseRemoteSetup(wanted, found).setup);
    return { socketFd: await detachFd(socket), exportBytes: found.sizeBytes };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

const noNetlink = 'netlink for nbd, which this network namespace, or this kernel, does not have';
const goesDown = `nobody connects again when the connection is lost: that needs ${noNetlink}; by ioctl the device goes down`;

function needsNetlink(): AttachError {
  return new AttachError('refused', `--persist needs ${noNetlink}: by ioctl a device that is in use cannot come back`);
}
