import { readFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_OPT_ABORT,
  NBD_OPT_LIST,
} from '#tsnbd/protocol/constants.js';
import { encodeOption } from '#tsnbd/protocol/option.js';
import { OPEN_SOCKETS_MAX } from '#tsnbd/transport/listen.js';
import type { RawClient } from './raw-client.js';
import { CLIENT_FLAGS, GO, GO_REPLIES_BYTES, readsWell, ServedImage, SIZE_BYTES } from './served-image.js';

const CROWD = 1_000;

let served: ServedImage;
beforeEach(() => {
  served = new ServedImage();
});
afterEach(() => served.close());

describe('a hostile client, while another is served', () => {
  const strangers: readonly [string, (client: RawClient) => void][] = [
    ['that sends garbage instead of flags', (client) => client.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))],
    ['that sends garbage instead of an option', (client) => client.send(Buffer.alloc(64, 0xff))],
    [
      'that announces an option of 4 GiB',
      (client) => {
        client.send(Buffer.concat([CLIENT_FLAGS, Buffer.from('IHAVEOPT'), Buffer.from('00000007ffffffff', 'hex')]));
      },
    ],
    [
      'that asks for options without end',
      (client) => {
        client.send(CLIENT_FLAGS);
        for (let count = 0; count < 100; count += 1) client.send(encodeOption(99, new Uint8Array(1_000)));
      },
    ],
    [
      'that leaves in the middle of the handshake',
      (client) => {
        client.send(Buffer.concat([CLIENT_FLAGS, GO.subarray(0, 11)]));
        client.finish();
      },
    ],
  ];
  test.each(strangers)('%s is closed', async (_, misbehave) => {
    await served.start();
    const good = await served.attach();
    const bad = await served.stranger();
    misbehave(bad);
    await bad.end();
    await expect.poll(() => served.failures().length).toBe(1);
    expect(await readsWell(good)).toBe(true);
  });

  // proto.md, 'NBD_OPT_ABORT': a client need not wait for the answer.
  test.each(['tcp', 'unix'] as const)('that takes its leave over %s and is gone at once has done so', async (kind) => {
    await served.start(kind === 'tcp' ? {} : { address: { kind, path: join(served.folder, 'socket') } });
    const good = await served.attach();
    const goodbye = Buffer.concat([
      CLIENT_FLAGS,
      ...[NBD_OPT_LIST, NBD_OPT_ABORT].map((option) => encodeOption(option, new Uint8Array(0))),
    ]);
    for (let turn = 0; turn < 20; turn += 1) {
      const leaving = await served.stranger();
      leaving.send(goodbye);
      if (kind === 'tcp' && turn % 2 === 0) served.sockets.at(-1)?.resetAndDestroy();
      else leaving.close();
    }
    await expect.poll(() => served.failures().length).toBe(20);
    expect(new Set(served.failures())).toEqual(new Set(['the client took its leave']));
    expect(await readsWell(good)).toBe(true);
    expect(await readsWell(await served.attach())).toBe(true);
  });

  test('that sends garbage instead of a request is cut', async () => {
    await served.start();
    const [good, bad] = [await served.attach(), await served.attach()];
    bad.send(Buffer.alloc(1_000, 0x55));
    await bad.end();
    await expect
      .poll(() => served.events.at(-1))
      .toMatchObject({ kind: 'ended', end: { error: { code: 'violation' } } });
    expect(await readsWell(good)).toBe(true);
  });

  test('that sends half a request and then nothing keeps nobody waiting', async () => {
    await served.start();
    const [good, bad] = [await served.attach(), await served.attach()];
    bad.send(bad.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(512) }).subarray(0, 100));
    expect(await readsWell(good)).toBe(true);
    expect(await readsWell(await served.attach())).toBe(true);
  });

  test('that asks for 2 GiB gets an error', async () => {
    await served.start();
    const client = await served.attach();
    expect(await client.ask({ type: NBD_CMD_READ, lengthBytes: 2 ** 31 })).toMatchObject({ error: NBD_EINVAL });
    expect(await readsWell(client)).toBe(true);
    expect(await client.ask({ type: NBD_CMD_WRITE, lengthBytes: 2 ** 31 })).toMatchObject({ error: NBD_EINVAL });
    await client.end();
    expect(await readsWell(await served.attach())).toBe(true);
  });

  test('that takes its leave in the middle of a write has written what was acknowledged, and no part of that', async () => {
    await served.start();
    const [good, bad] = [await served.attach(), await served.attach()];
    expect(await bad.ask({ type: NBD_CMD_WRITE, data: Buffer.alloc(512, 2) })).toMatchObject({ error: 0 });
    const disc = bad.encode({ type: NBD_CMD_DISC });
    bad.send(
      Buffer.concat([bad.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(4_096, 3) }).subarray(0, 1_000), disc]),
    );
    bad.finish();
    await expect.poll(ends).toEqual(['the client left in the middle of a request']);
    expect(readFileSync(served.path).subarray(0, 513)).toEqual(Buffer.concat([Buffer.alloc(512, 2), Buffer.of(1)]));
    expect((await good.ask({ type: NBD_CMD_READ, lengthBytes: 512 })).data.equals(Buffer.alloc(512, 2))).toBe(true);
  });

  test('that goes on behind its DISC is not heard', async () => {
    await served.start();
    const [good, bad] = [await served.attach(), await served.attach()];
    const write = bad.encode({ type: NBD_CMD_WRITE, data: Buffer.alloc(512, 3) });
    bad.send(Buffer.concat([bad.encode({ type: NBD_CMD_DISC }), write, Buffer.alloc(100_000, 0x55)]));
    expect((await bad.end()).length).toBe(0);
    await expect.poll(ends).toEqual(['disconnected']);
    expect(await readsWell(good)).toBe(true);
  });

  test('that never reads what it asked for holds up itself alone', async () => {
    await served.start();
    const [good, bad] = [await served.attach(), await served.attach()];
    bad.pause();
    const read = () => bad.encode({ type: NBD_CMD_READ, lengthBytes: SIZE_BYTES });
    bad.send(Buffer.concat(Array.from({ length: 32 }, read)));
    for (let turn = 0; turn < 20; turn += 1) expect(await readsWell(good)).toBe(true);
    expect(await readsWell(await served.attach())).toBe(true);
    expect(ends()).toEqual([]);
    bad.close();
    await expect.poll(ends).toEqual([expect.stringMatching(/EPIPE|ECONNRESET/)]);
  });

  test('that zeroes fast though nobody said that it can is told so, and nothing is changed', async () => {
    const image = { ...served.image, traits: { ...served.image.traits, fastZero: false } };
    await served.start({ exports: [{ name: '', description: undefined, image }] });
    const client = await served.attach();
    for (const flags of [NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE]) {
      const zero = { type: NBD_CMD_WRITE_ZEROES, lengthBytes: 512, flags };
      expect(await client.ask(zero)).toMatchObject({ error: NBD_EINVAL });
    }
    expect(await readsWell(client)).toBe(true);
  });

  test.each([
    ['stalls in the handshake', 'begin', () => {}],
    ['speaks a byte now and then', 'finish', drip],
  ] as const)('that %s is given up at the limit, if there is one', async (_, doing, misbehave) => {
    await served.start({ handshakeLimitMs: 1_000 });
    const client = await served.stranger();
    misbehave(client);
    await client.end();
    expect(served.failures()).toEqual([`cannot ${doing} the negotiation: no answer within the time limit`]);
    await served.server?.stop();

    await served.start({ handshakeLimitMs: 0 });
    const late = await served.stranger();
    await new Promise((resolve) => setTimeout(resolve, 400));
    late.send(Buffer.concat([CLIENT_FLAGS, GO]));
    await late.read(GO_REPLIES_BYTES);
    expect(await readsWell(late)).toBe(true);
  });

  test('among 1,000 that stall in the handshake is closed at once or given up at the limit, and makes room', async () => {
    await served.start({ handshakeLimitMs: 2_000 });
    const good = await served.attach();
    const { address } = served.server ?? {};
    const port = address?.kind === 'tcp' ? address.port : 0;
    for (let count = 0; count < CROWD; count += 1) {
      const socket = connectSocket({ host: '127.0.0.1', port });
      socket.on('error', () => {}).resume();
      served.sockets.push(socket);
    }
    const dropped = () => served.events.filter(({ kind }) => kind === 'dropped').length;
    await expect.poll(dropped).toBeGreaterThan(0);
    expect(await readsWell(good)).toBe(true);
    await expect.poll(() => served.failures().length + dropped(), { timeout: 60_000 }).toBe(CROWD);
    expect(new Set(served.failures())).toEqual(
      new Set(['cannot begin the negotiation: no answer within the time limit']),
    );
    expect(served.failures().length).toBeGreaterThanOrEqual(OPEN_SOCKETS_MAX);
    expect(await readsWell(good)).toBe(true);
    expect(await readsWell(await served.attach())).toBe(true);
  }, 90_000);
});

/** How the connections of clients that were served have ended. */
function ends(): readonly string[] {
  return served.events.flatMap((event) => {
    if (event.kind !== 'ended') return [];
    return [event.end.kind === 'failed' ? event.end.error.message : event.end.how];
  });
}

/** Bytes of an option that is long in coming, one in 100 ms, until the server has enough of it. */
function drip(client: RawClient): void {
  client.send(CLIENT_FLAGS);
  let at = 0;
  const timer = setInterval(() => client.send(GO.subarray(at, ++at)), 100);
  void client.end().then(() => clearInterval(timer));
}
