import { closeSync } from 'node:fs';
import { connect } from '../transport/connect.js';
import { deadlineAfter } from '../transport/deadline.js';
import { detachFd } from '../transport/detach-fd.js';
import type { AttachContext } from './attach-context.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { type Attachment, bringUp } from './attachment.js';
import { negotiate } from './query.js';
import { chooseRemoteSetup } from './remote-setup.js';

/** One deadline over name lookup, connect and negotiation. */
const CONNECT_LIMIT_MS = 10_000;

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
  const goal = { kind: 'go', exportName } as const;
  const { export: found } = await undo.step('negotiate', () => negotiate(socket, goal, 'transmission', deadline));
  onEvent({ kind: 'negotiated', sizeBytes: found.sizeBytes });

  const { setup, notices } = chooseRemoteSetup(request, found);
  for (const text of notices) onEvent({ kind: 'notice', text });
  const socketFd = await undo.step('take the socket from the event loop', () => detachFd(socket), closeSync);
  const about = { kind: 'remote', address, exportName, sizeBytes: setup.sizeBytes };
  return bringUp(request, { ...setup, sockets: [socketFd] }, about, context);
}
