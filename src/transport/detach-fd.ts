import { once } from 'node:events';
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { duplicateFd, setBlocking } from '../kernel/fd-calls.js';
import { TransportError } from './errors.js';

/**
 * Gives a connected socket up: a blocking fd of the same connection that the event loop knows nothing of, closed on exec;
 * it is the caller's to close. The net.Socket is gone afterwards, the connection is not. Whoever read from the socket must
 * have called `stopReading` at the byte from which on the new owner reads.
 *
 * @throws TransportError 'closed' when the connection is over or bytes of it are still in Node's hands
 */
export async function detachFd(socket: Socket): Promise<number> {
  const { fd } = handleOf(socket);
  if (socket.readableLength > 0 || socket.writableLength > 0) {
    throw new TransportError('closed', 'the other side sent something that nobody asked for');
  }
  const copy = duplicateFd(fd);
  try {
    setBlocking(copy);
  } catch (error) {
    closeSync(copy);
    throw error;
  }
  // destroy() closes Node's fd without a shutdown, so that the copy stays connected.
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
  return copy;
}

/**
 * Leaves every byte that has not been read yet in the system's buffer, for good: pause() would go on reading until a
 * buffer of Node's is full.
 */
export function stopReading(socket: Socket): void {
  handleOf(socket).readStop(); // Node is not told: it believes that it reads, and so does not begin again
}

/** Undoes `stopReading`: what has come meanwhile, and what will, is read as if nothing had been. */
export function readOn(socket: Socket): void {
  handleOf(socket).readStart();
}

/** What a net.Socket keeps of libuv; no document promises it, so nothing but this file knows it. */
interface Handle {
  readonly fd: number;
  readStop(): void;
  readStart(): void;
}

function handleOf(socket: Socket): Handle {
  const { _handle: handle } = socket as unknown as { _handle: Partial<Handle> | null };
  const { fd } = handle ?? {};
  if (handle === null || typeof fd !== 'number' || fd < 0 || typeof handle.readStop !== 'function') {
    throw new TransportError('closed', 'the connection was closed by the other side');
  }
  return handle as Handle;
}
