import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mapExport } from '#tsnbd/attach/map-export.js';
import { openImage } from '#tsnbd/image/open-image.js';
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EIO,
  NBD_REPLY_TYPE_ERROR,
} from '#tsnbd/protocol/constants.js';
import type { Address } from '#tsnbd/transport/address.js';
import { largePipes } from '../large-pipes.js';
import { ProtocolClient } from './protocol-client.js';
import type { RawClient } from './raw-client.js';
import { readsWell, ServedImage, SIZE_BYTES } from './served-image.js';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

let served: ServedImage;
beforeEach(() => {
  served = new ServedImage();
});
afterEach(() => served.close());

const read = (client: RawClient, offsetBytes: number, lengthBytes = 512) =>
  client.ask({ type: NBD_CMD_READ, offsetBytes, lengthBytes });
const write = (client: RawClient, offsetBytes: number, value: number, lengthBytes = 512) =>
  client.ask({ type: NBD_CMD_WRITE, offsetBytes, data: Buffer.alloc(lengthBytes, value) });
const full = (value: number, lengthBytes = 512) => ({ error: 0, data: Buffer.alloc(lengthBytes, value) });

describe('a file that is served', () => {
  test('and cut by somebody answers EIO where its data was, and nobody is cut off for that', async () => {
    await served.start();
    const [one, other] = [await served.attach(), await served.attach()];
    truncateSync(served.path, MIB);
    for (const offsetBytes of [MIB, SIZE_BYTES - 512])
      expect(await read(one, offsetBytes)).toMatchObject({ error: NBD_EIO });
    expect(await read(one, MIB - 512, 1_024)).toMatchObject({ error: NBD_EIO });
    expect((await read(one, 0, MIB)).data.equals(Buffer.alloc(MIB, 1))).toBe(true);
    expect(await write(one, 512, 2)).toMatchObject({ error: 0 });
    expect(await readsWell(other)).toBe(true);
    expect(await read(other, 512)).toMatchObject(full(2));
    expect(await readsWell(await served.attach())).toBe(true);
  });

  test.each(['simple', 'structured', 'extended'] as const)(
    'and cut by somebody answers EIO to large reads by reference too, before a word of data (%s)',
    async (replyStyle) => {
      await served.start({ address: { kind: 'unix', path: join(served.folder, 'socket') } });
      const client = await ProtocolClient.negotiate(await served.open(), { replyStyle });
      const before = largePipes();
      expect((await client.read(0, 2 * MIB)).data.equals(Buffer.alloc(2 * MIB, 1))).toBe(true);
      expect((await client.read(0, MIB)).data.equals(Buffer.alloc(MIB, 1))).toBe(true);
      // With one core everything is copied.
      expect(largePipes() - before).toBe(availableParallelism() > 1 ? 1 : 0);
      truncateSync(served.path, MIB);
      // ProtocolClient would not forgive data that are missing behind a header that promised them.
      for (const [offsetBytes, lengthBytes] of [
        [MIB, 65_536],
        [MIB - 65_536, 131_072],
        [MIB - 1, 65_536],
        [SIZE_BYTES - MIB, MIB],
      ] as const) {
        const { error, chunkTypes } = await client.read(offsetBytes, lengthBytes);
        const expected = { error: NBD_EIO, chunkTypes: replyStyle === 'simple' ? [] : [NBD_REPLY_TYPE_ERROR] };
        expect({ error, chunkTypes }).toEqual(expected);
        expect((await client.read(MIB - 131_072, 131_072)).data.equals(Buffer.alloc(131_072, 1))).toBe(true);
      }
      expect(await client.disconnect()).toBeUndefined();
    },
  );

  test('and replaced by another is served on, and the other one is left alone', async () => {
    await served.start();
    const client = await served.attach();
    const other = join(served.folder, 'other.raw');
    writeFileSync(other, Buffer.alloc(SIZE_BYTES, 9));
    renameSync(other, served.path);
    expect(await write(client, 512, 2)).toMatchObject({ error: 0 });
    expect(await client.ask({ type: NBD_CMD_FLUSH })).toMatchObject({ error: 0 });
    expect(await readsWell(client)).toBe(true);
    expect(await read(await served.attach(), 512)).toMatchObject(full(2));
    expect(readFileSync(served.path).equals(Buffer.alloc(SIZE_BYTES, 9))).toBe(true);
  });
});

test('a sparse file of 3 TiB is served to its last byte, and mapped', async () => {
  const path = join(served.folder, 'huge.raw');
  const fd = openSync(path, 'w');
  ftruncateSync(fd, 3 * TIB);
  closeSync(fd);
  const image = openImage(path, { format: 'raw', readOnly: false });
  const { address } = await served.start({ exports: [{ name: '', description: undefined, image }] });
  const client = await served.attach();
  const places = [2 * TIB - 4_096, 2 * TIB + 64 * MIB, 3 * TIB - 8_192];
  for (const [index, place] of places.entries()) {
    expect(await write(client, place, index + 1, 8_192)).toMatchObject({ error: 0 });
  }
  for (const [index, place] of places.entries()) {
    expect(await read(client, place, 8_192)).toMatchObject(full(index + 1, 8_192));
  }
  expect(await read(client, TIB)).toMatchObject(full(0));
  expect(statSync(path).blocks * 512).toBeLessThan(MIB);
  const { sizeBytes, pieces } = await mapExport({ address: address as Address, exportName: '' });
  const data = pieces.filter(({ status }) => status === 0);
  expect([sizeBytes, data.map(({ offsetBytes, lengthBytes }) => [offsetBytes, lengthBytes])]).toEqual([
    3 * TIB,
    places.map((place) => [place, 8_192]),
  ]);
  await served.server?.stop();
  image.close();
});
