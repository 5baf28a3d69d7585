import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { messageOf } from '../base/message-of.js';
import type { DeviceSetup, NbdDevice } from '../kernel/nbd-device.js';
import type { TcpEnds } from '../kernel/tcp-end.js';
import { NBD_FLAG_CAN_MULTI_CONN } from '../protocol/constants.js';
import type { ExportInfo } from '../protocol/export-info.js';
import type { OnHandshakeMessage } from '../protocol/handshake-message.js';
import { addressInWords } from '../transport/address.js';
import { connect } from '../transport/connect.js';
import { deadlineAfter } from '../transport/deadline.js';
import { detachFd } from '../transport/detach-fd.js';
import type { AttachContext } from './attach-context.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { type Attachment, bringUp } from './attachment.js';
import { CONNECT_LIMIT_MS } from './connect-limit.js';
import { AttachError, noNetlink } from './errors.js';
import { describeExport, isAnswering, negotiate } from './query.js';
import { type ConnectionSource, Supervisor } from './reconnect.js';
import { chooseRemoteSetup, inFull, type RemoteSetup, requireUnchanged, untoldExport } from './remote-setup.js';

interface Connection {
  /** How much the export had when it was negotiated, for servers go by that. */
  readonly sizeBytes: number;
  /** Absent on a unix socket. */
  readonly tcp: TcpEnds | undefined;
}

/** The connections that are open, by their fds. */
type Connections = Map<number, Connection>;

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
  const found = await undo.step('negotiate', () =>
    learn(socket, request, deadline, (message) => onEvent({ kind: 'message', message })),
  );
  onEvent({ kind: 'negotiated', sizeBytes: found.sizeBytes });

  const chosen = chooseRemoteSetup(request, found);
  for (const text of chosen.notices) onEvent({ kind: 'notice', text });
  const open: Connections = new Map();
  await undo.step(
    'take the socket from the event loop',
    () => take(socket, found, open),
    () => {
      for (const fd of open.keys()) closeSync(fd);
    },
  );
  await undo.step('connect again, as often as was asked for', () => connectMore(request, chosen.setup, open, context));
  const deadTimeoutSeconds = request.persist === 'no' ? undefined : request.deadTimeoutSeconds;
  const { unattended } = request;
  const setup = { ...chosen.setup, sockets: [...open.keys()], deadTimeoutSeconds, unattended };
  /** Its size changes with the device's. */
  const known = { ...setup };
  const { forMounts } = request;
  /** As `open` has them. */
  const tcp: TcpEnds[] = [];
  const noteTcp = () => void tcp.splice(0, tcp.length, ...[...open.values()].flatMap((one) => one.tcp ?? []));
  noteTcp();
  const about = { kind: 'remote', address, exportName, tcp, ...(forMounts && { forMounts }) } as const;
  const supervise = (device: NbdDevice, record: () => void) => {
    if (device.link === undefined && request.persist === 'required') throw needsNetlink();
    if (device.link === undefined) {
      if (request.persist !== 'no') onEvent({ kind: 'notice', text: goesDown });
      return undefined;
    }
    const onChange = () => {
      noteTcp();
      record();
    };
    return new Supervisor(device, device.link, connections(request, known, open, onChange), request, onEvent);
  };
  const resizing = {
    availableBytes: async () => {
      if (request.handshake === 'none') throw new AttachError('refused', 'its server does not tell its size');
      const { info } = await describeExport({ address, exportName });
      requireUnchanged({ ...known, sizeBytes: 0 }, chooseRemoteSetup(inFull(request), info).setup);
      return info.sizeBytes;
    },
    reachableBytes: () => Math.min(...[...open.values()].map((one) => one.sizeBytes)),
    resized: (sizeBytes: number) => {
      known.sizeBytes = sizeBytes;
    },
  };
  return bringUp(request, setup, about, context, { supervise, resizing });
}

/** The rest of several connections; of what the server does not allow the user is told. */
async function connectMore(
  request: RemoteAttachRequest,
  setup: RemoteSetup['setup'],
  open: Connections,
  { onEvent, stop }: AttachContext,
): Promise<void> {
  const { connections } = request;
  const tell = (why: string) => onEvent({ kind: 'notice', text: `${open.size} of ${connections} connections: ${why}` });
  if (connections > 1 && (setup.flags & NBD_FLAG_CAN_MULTI_CONN) === 0) {
    return tell('the server does not say that more than one is safe (NBD_FLAG_CAN_MULTI_CONN)');
  }
  try {
    while (open.size < connections) await renew(request, setup, open, stop);
  } catch (error) {
    if (stop.aborted) throw error;
    tell(messageOf(error));
  }
}

function connections(
  request: RemoteAttachRequest,
  setup: DeviceSetup,
  open: Connections,
  onChange: () => void,
): ConnectionSource {
  const { address, exportName } = request;
  return {
    server: addressInWords(address),
    renew: (stop) => renew(request, setup, open, stop),
    isAnswering: (stop) => isAnswering({ address, exportName }, deadlineAfter(CONNECT_LIMIT_MS, stop)),
    discard: (socket) => {
      open.delete(socket);
      closeSync(socket);
      onChange();
    },
  };
}

/** Negotiates for the export; without a negotiation all that is known is what the user says. */
async function learn(
  socket: Socket,
  request: RemoteAttachRequest,
  deadline: AbortSignal,
  onMessage?: OnHandshakeMessage,
): Promise<ExportInfo> {
  const { address, exportName, handshake } = request;
  if (handshake === 'none') return untoldExport(request);
  const goal = { kind: 'go', exportName, byExportName: handshake === 'export-name' } as const;
  return (await negotiate({ socket, address }, goal, 'transmission', deadline, onMessage)).export;
}

/** Opens another connection of the export that a device was set up with. */
async function renew(
  request: RemoteAttachRequest,
  setup: RemoteSetup['setup'],
  open: Connections,
  stop: AbortSignal,
): Promise<number> {
  const deadline = deadlineAfter(CONNECT_LIMIT_MS, stop);
  const socket = await connect(request.address, deadline);
  try {
    const found = await learn(socket, request, deadline);
    const wanted = { ...inFull(request), blockSizeBytes: setup.blockSizeBytes };
    requireUnchanged(setup, chooseRemoteSetup(wanted, found).setup);
    return await take(socket, found, open);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Takes the fd of a connection that is negotiated; answers it. */
async function take(socket: Socket, { sizeBytes }: ExportInfo, open: Connections): Promise<number> {
  const { localPort, remoteAddress, remotePort } = socket;
  const isTcp = localPort !== undefined && remoteAddress !== undefined && remotePort !== undefined;
  const socketFd = await detachFd(socket);
  open.set(socketFd, { sizeBytes, tcp: isTcp ? { localPort, remoteAddress, remotePort } : undefined });
  return socketFd;
}

const goesDown = `nobody connects again when the connection is lost: that needs ${noNetlink}; by ioctl the device goes down`;

function needsNetlink(): AttachError {
  return new AttachError('refused', `--persist needs ${noNetlink}: by ioctl a device that is in use cannot come back`);
}
