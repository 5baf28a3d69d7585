import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type OpenedImage, openImage } from '#tsnbd/image/open-image.js';
import { NBD_CMD_READ, NBD_OPT_GO } from '#tsnbd/protocol/constants.js';
import { encodeExportQuestion, encodeOption } from '#tsnbd/protocol/option.js';
import { type ServeOptions, type Server, serve } from '#tsnbd/server/serve.js';
import type { ServeEvent } from '#tsnbd/server/serve-event.js';
import type { Address } from '#tsnbd/transport/address.js';
import { connect } from '#tsnbd/transport/connect.js';
import { RawClient } from './raw-client.js';

export const SIZE_BYTES = 4_194_304;
const GREETING_BYTES = 18;
export const GO_REPLIES_BYTES = 20 + 12 + 20; // NBD_REP_INFO with NBD_INFO_EXPORT, NBD_REP_ACK
export const TCP: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };

export const CLIENT_FLAGS = Buffer.from([0, 0, 0, 3]);
const goTo = (exportName: string) => encodeOption(NBD_OPT_GO, encodeExportQuestion({ exportName, infoTypes: [] }));
export const GO = goTo('');

/** Negotiates for an export, up to its first request. */
export async function attachBy(socket: Socket, exportName = ''): Promise<RawClient> {
  const client = new RawClient(socket);
  await client.read(GREETING_BYTES);
  client.send(Buffer.concat([CLIENT_FLAGS, goTo(exportName)]));
  await client.read(GO_REPLIES_BYTES);
  return client;
}

/** A raw image of ones in a folder of its own, a server of it, and clients that say whatever a test wants. */
export class ServedImage {
  readonly folder = mkdtempSync(join(tmpdir(), 'tsnbd-serve-'));
  readonly path = join(this.folder, 'disk.raw');
  readonly image: OpenedImage;
  /** All but the messages of negotiations. */
  readonly events: ServeEvent[] = [];
  readonly sockets: Socket[] = [];
  server: Server | undefined;

  constructor() {
    writeFileSync(this.path, Buffer.alloc(SIZE_BYTES, 1));
    this.image = openImage(this.path, { format: 'raw', readOnly: false });
  }

  async start(options: Partial<ServeOptions> = {}): Promise<Server> {
    const exports = [{ name: '', description: undefined, image: this.image }];
    const all = {
      address: TCP,
      exports,
      clientsMax: undefined,
      persistent: true,
      handshakeLimitMs: 10_000,
      ...options,
    };
    this.server = await serve(all, (event) => {
      if (event.kind !== 'message') this.events.push(event);
    });
    return this.server;
  }

  async open(): Promise<Socket> {
    const socket = await connect((this.server?.address ?? TCP) as Address, AbortSignal.timeout(5_000));
    this.sockets.push(socket);
    return socket;
  }

  /** A client whose words are the test's, from the server's first byte on. */
  async stranger(): Promise<RawClient> {
    const client = new RawClient(await this.open());
    await client.read(GREETING_BYTES);
    return client;
  }

  async attach(exportName = ''): Promise<RawClient> {
    return attachBy(await this.open(), exportName);
  }

  /** Why clients were not served. */
  failures(): readonly string[] {
    return this.events.filter((event) => event.kind === 'not-served').map(({ error }) => error.message);
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await this.server?.stop();
    this.image.close();
    rmSync(this.folder, { recursive: true });
  }
}

export async function readsWell(client: RawClient): Promise<boolean> {
  const { error, data } = await client.ask({ type: NBD_CMD_READ, lengthBytes: 512 });
  return error === 0 && data.equals(Buffer.alloc(512, 1));
}
