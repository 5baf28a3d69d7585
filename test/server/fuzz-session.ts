import { once } from 'node:events';
import { type AddressInfo, connect as connectSocket, createServer, Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { expect } from 'vitest';
import type { OpenedImage } from '#tsnbd/image/open-image.js';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { NBD_CMD_WRITE, NBD_EINVAL } from '#tsnbd/protocol/constants.js';
import { announcedFlags } from '#tsnbd/protocol/request-rules.js';
import { imageFlags, rulesOf } from '#tsnbd/server/exports.js';
import { INPUT_BYTES } from '#tsnbd/server/request-input.js';
import { type ServedConnection, startConnection } from '#tsnbd/server/workers.js';
import { detachFd } from '#tsnbd/transport/detach-fd.js';
import type { Random } from './any-request.js';
import type { Terms } from './disk-model.js';
import { type CheckedReply, ProtocolClient } from './protocol-client.js';
import { type AskedRequest, RawClient } from './raw-client.js';

/** What a client does at last, and how the server says that its connection ended. */
const ENDS: readonly (readonly [deed: (client: ProtocolClient) => Promise<void> | void, end: object])[] = [
  [() => {}, { kind: 'left', how: 'disconnected' }],
  [({ raw }) => raw.finish(), { kind: 'left', how: 'closed' }],
  [({ raw }) => raw.send(Buffer.alloc(64, 0x55)), { kind: 'failed', error: { code: 'violation' } }],
  [
    (client) => {
      client.raw.send(client.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(512) }).bytes.subarray(0, 100));
      client.raw.finish();
    },
    { kind: 'failed', error: { code: 'lost' } },
  ],
  [
    async (client) => {
      const { error } = await client.ask({ type: NBD_CMD_WRITE, lengthBytes: 33_554_433 });
      expect(error).toBe(NBD_EINVAL);
    },
    { kind: 'failed', error: { code: 'violation' } },
  ],
];

/** A client that asks for one batch after the other on one connection, which its first requests may come with. */
export class FuzzSession {
  readonly #image: OpenedImage;
  readonly #terms: Terms;
  readonly #client: ProtocolClient;
  #connection: ServedConnection | undefined;
  readonly #socketFd: number;

  private constructor(image: OpenedImage, terms: Terms, client: ProtocolClient, socketFd: number) {
    this.#image = image;
    this.#terms = terms;
    this.#client = client;
    this.#socketFd = socketFd;
  }

  static async open(image: OpenedImage, terms: Terms, overTcp: boolean): Promise<FuzzSession> {
    const [socket, socketFd] = overTcp ? await tcpPair() : unixPair();
    return new FuzzSession(image, terms, new ProtocolClient(new RawClient(socket), terms), socketFd);
  }

  /** Sends requests, whole or in pieces, before it looks at a reply; answers the replies in the same order. */
  async exchange(batch: readonly AskedRequest[], random: Random): Promise<readonly CheckedReply[]> {
    const encoded = batch.map((request) => this.#encode(request));
    let bytes = Buffer.concat(encoded.map((one) => one.bytes));
    if (this.#connection === undefined) {
      const early = random(Math.min(bytes.length, INPUT_BYTES) + 1);
      this.#start(bytes.subarray(0, early));
      bytes = bytes.subarray(early);
    }
    while (bytes.length > 0) {
      const cut = random(3) === 0 ? 1 + random(bytes.length) : bytes.length;
      this.#client.raw.send(bytes.subarray(0, cut));
      bytes = bytes.subarray(cut);
      await turn();
    }
    return Promise.all(encoded.map((one) => one.reply));
  }

  /** Ends in one way or another, and sees that the server takes it as what it is. */
  async end(random: Random): Promise<void> {
    const [deed, end] = ENDS[random(ENDS.length)] ?? ENDS[0] ?? [];
    await deed?.(this.#client);
    expect(await this.#client.disconnect()).toBeUndefined();
    expect(await this.#connection?.ended).toMatchObject(end ?? {});
  }

  /** Wherever a test is, also when it has failed. */
  async close(): Promise<void> {
    this.#client.close();
    this.#connection?.shutdown();
    await this.#connection?.ended;
  }

  #start(received: Uint8Array): void {
    const { replyStyle, contexts, blockSizes } = this.#terms;
    const flags = announcedFlags(imageFlags(this.#image, true), replyStyle);
    const image = { ...this.#image, blockSizes };
    const rules = rulesOf(image, { flags, replyStyle, statusContexts: contexts.length });
    this.#connection = startConnection({
      socketFd: this.#socketFd,
      image: this.#image.handle,
      rules,
      contexts,
      received,
    });
  }

  /** With the flags as they were asked for, also those that make no sense. */
  #encode(request: AskedRequest): ReturnType<ProtocolClient['encode']> {
    const encoded = this.#client.encode(request);
    encoded.bytes.writeUInt16BE(request.flags ?? 0, 4);
    return encoded;
  }
}

function unixPair(): [client: Socket, serverFd: number] {
  const [fd, serverFd] = socketPair();
  return [new Socket({ fd, readable: true, writable: true }), serverFd];
}

async function tcpPair(): Promise<[client: Socket, serverFd: number]> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const client = connectSocket({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, noDelay: true });
  const [socket] = await accepted;
  server.close();
  return [client, await detachFd(socket as Socket)];
}
