import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Worker } from 'node:worker_threads';
import { invariant } from '../base/invariant.js';
import { exitNow } from '../kernel/fd-calls.js';
import { within } from '../kernel/within.js';
import type { HandshakeMessage } from '../protocol/handshake-message.js';
import { ServerHandshake, type ServerOutcome } from '../protocol/server-handshake.js';
import { addressInWords, type ListenAddress } from '../transport/address.js';
import { deadlineAfter } from '../transport/deadline.js';
import { detachFd } from '../transport/detach-fd.js';
import { type HandshakeMachine, runHandshake } from '../transport/handshake-socket.js';
import { type Listener, listen } from '../transport/listen.js';
import { ServerError } from './errors.js';
import { type Exports, exportsOf, rulesOf, type ServedExport } from './exports.js';
import { CLIENTS_MAX, type Place, Places } from './places.js';
import type { OnServeEvent } from './serve-event.js';
import { SpareWorkers } from './spare-workers.js';
import { type ServedConnection, startConnection } from './workers.js';

/** `stop` gives workers so long to answer what they have, and then, cut off, to finish their last call. */
const DRAIN_LIMIT_MS = 10_000;
const CUT_LIMIT_MS = 30_000;
/** Those who still negotiate are told, if they ask within this time. */
const GOODBYE_LIMIT_MS = 500;
const STUCK_STATUS = 1;

export interface ServeOptions {
  readonly address: ListenAddress;
  /** Each under a name of its own. The images stay the caller's, to be closed once the server has ended. */
  readonly exports: readonly ServedExport[];
  /** Clients served at a time; absent: CLIENTS_MAX. */
  readonly clientsMax: number | undefined;
  /** A client has so long to choose its export; 0 is no limit. */
  readonly handshakeLimitMs: number;
  /** Go on when the last client has left. */
  readonly persistent: boolean;
}

export interface Server {
  /** With the port that was taken where 0 was asked for. */
  readonly address: ListenAddress;
  /** Resolves when nobody listens any more and every worker is gone. */
  readonly ended: Promise<void>;
  /** Answers the requests that are there, flushes, closes; resolves with `ended`. A worker that is stuck ends the process. */
  stop(): Promise<void>;
}

/**
 * Serves images to clients until `stop`, or, unless it is `persistent`, until the last client that finished its
 * handshake has left.
 *
 * @throws TransportError 'address' when it cannot listen
 */
export async function serve(options: ServeOptions, onEvent: OnServeEvent): Promise<Server> {
  const server = new ImageServer(options, onEvent);
  await server.listen();
  return server;
}

class ImageServer implements Server {
  readonly ended: Promise<void>;
  readonly #options: ServeOptions;
  readonly #exports: Exports;
  readonly #places: Places;
  readonly #onEvent: OnServeEvent;
  /** Aborted when nobody is listened to any more. */
  readonly #closing = new AbortController();
  /** Aborted a moment later: who negotiates may still be told that the server is about to end. */
  readonly #cutting = new AbortController();
  readonly #served = new Set<ServedConnection>();
  readonly #spares: SpareWorkers;
  #resolveEnded: () => void = () => {};
  #listener: Listener | undefined;
  #clients = 0;
  #hasServed = false;
  /** Sockets between accept and worker. */
  #handshakes = 0;

  constructor(options: ServeOptions, onEvent: OnServeEvent) {
    this.#options = options;
    this.#exports = exportsOf(options.exports, options.clientsMax);
    this.#places = new Places(options.clientsMax);
    const clientsMax = options.clientsMax ?? CLIENTS_MAX;
    this.#spares = new SpareWorkers(() => clientsMax - this.#served.size);
    this.#onEvent = onEvent;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get address(): ListenAddress {
    return this.#listener?.address ?? this.#options.address;
  }

  async listen(): Promise<void> {
    this.#listener = await listen(this.#options.address, {
      onConnection: (socket) => {
        void this.#welcome(socket);
      },
      onDropped: () => this.#onEvent({ kind: 'dropped' }),
    });
    this.#spares.fillSoon();
  }

  async stop(): Promise<void> {
    this.#close();
    for (const connection of this.#served) connection.drain();
    if (await this.#endedWithin(DRAIN_LIMIT_MS)) return;
    for (const connection of this.#served) connection.shutdown();
    if (await this.#endedWithin(CUT_LIMIT_MS)) return;
    this.#onEvent({ kind: 'stuck', clients: this.#served.size });
    exitNow(STUCK_STATUS);
  }

  /** From accept to worker; whatever goes wrong is this client's trouble only. */
  async #welcome(socket: Socket): Promise<void> {
    this.#clients += 1;
    const client = this.#clients;
    const from = nameOf(socket, this.address);
    const place = this.#places.newcomer();
    this.#handshakes += 1;
    try {
      await place.soon();
      const accepted = await this.#negotiate(socket, place, client);
      this.#start(await detachFd(socket), accepted, place, { client, from });
    } catch (error) {
      place.leave();
      this.#onEvent({ kind: 'not-served', client, from, error: place.told ?? asError(error) });
    } finally {
      socket.destroy();
      this.#handshakes -= 1;
      this.#endIfDone();
    }
  }

  async #negotiate(socket: Socket, place: Place, client: number): Promise<Accepted> {
    const deadline = deadlineAfter(this.#options.handshakeLimitMs, this.#cutting.signal);
    const isClosing = () => this.#closing.signal.aborted;
    const onMessage = (message: HandshakeMessage) => this.#onEvent({ kind: 'message', client, message });
    const exports = { ...this.#exports, refusal: () => place.refusal() };
    const handshake = new ServerHandshake(exports, { isClosing, onMessage });
    const outcome = await runHandshake(socket, takingPlace(handshake, place), deadline);
    if (outcome.kind === 'closed') throw outcome.reason;
    return outcome;
  }

  #start(socketFd: number, accepted: Accepted, place: Place, who: Newcomer): void {
    if (this.#closing.signal.aborted) {
      closeSync(socketFd);
      throw new ServerError('refused', 'the server is about to end');
    }
    const { exportName, flags, replyStyle, contexts, received } = accepted;
    const image = this.#exports.image(exportName);
    invariant(image !== undefined, 'an export that was found has an image');
    const rules = rulesOf(image, { flags, replyStyle, statusContexts: contexts.length });
    const start = { socketFd, image: image.handle, rules, contexts, received };
    const worker = this.#workerFor(socketFd);
    const connection = startConnection(start, worker, false);
    this.#served.add(connection);
    this.#hasServed = true;
    this.#onEvent({ kind: 'connected', ...who, exportName, replyStyle });
    void connection.ended.then((end) => {
      this.#served.delete(connection);
      this.#spares.give(worker);
      place.leave();
      this.#onEvent({ kind: 'ended', client: who.client, end });
      this.#endIfDone();
    });
  }

  /** Without one the client is closed, which was told already that it is served. */
  #workerFor(socketFd: number): Worker {
    try {
      return this.#spares.take();
    } catch (error) {
      closeSync(socketFd);
      throw error;
    }
  }

  #endIfDone(): void {
    if (this.#served.size > 0 || this.#handshakes > 0) return;
    if (this.#hasServed && !this.#options.persistent) this.#close();
    if (this.#closing.signal.aborted) this.#resolveEnded();
  }

  #close(): void {
    if (this.#closing.signal.aborted) return;
    this.#listener?.close();
    this.#spares.close();
    this.#closing.abort();
    setTimeout(() => this.#cutting.abort(), GOODBYE_LIMIT_MS).unref();
    this.#endIfDone();
  }

  async #endedWithin(limitMs: number): Promise<boolean> {
    return (await within(this.ended, limitMs)) !== 'late';
  }
}

type Accepted = Extract<ServerOutcome, { kind: 'transmission' }>;

interface Newcomer {
  readonly client: number;
  readonly from: string;
}

/** `handshake`, and the place is taken in the very turn in which the client is accepted: no other can be meanwhile. */
function takingPlace(handshake: ServerHandshake, place: Place): HandshakeMachine<ServerOutcome> {
  return {
    start: () => handshake.start(),
    receive: (piece) => {
      const step = handshake.receive(piece);
      if (step.outcome?.kind === 'transmission') place.take();
      return step;
    },
    end: () => handshake.end(),
  };
}

function nameOf(socket: Socket, address: ListenAddress): string {
  if (socket.remoteAddress === undefined) return addressInWords(address);
  return addressInWords({ kind: 'tcp', host: socket.remoteAddress, port: socket.remotePort ?? 0 });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
