import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NBD_EIO, NBD_REPLY_TYPE_ERROR } from '#tsnbd/protocol/constants.js';
import { connect } from '#tsnbd/transport/connect.js';
import { areReadsPiped, largePipes } from '../large-pipes.js';
import { ProtocolClient } from '../server/protocol-client.js';
import { serveTraced } from './served.js';

const MIB = 1_048_576;

test.runIf(areReadsPiped).each(['simple', 'structured', 'extended'] as const)(
  'a disk error under a large read by reference is EIO in the reply, before a word of data (%s)',
  async (replyStyle) => {
    const folder = mkdtempSync(join(tmpdir(), 'tsnbd-failing-'));
    const [image, path] = [join(folder, 'disk.raw'), join(folder, 'sock')];
    writeFileSync(image, Buffer.alloc(4 * MIB, 7));
    // After one read that goes well no read of the image does, by reference or by a copy.
    const faults = ['inject=sendfile:error=EIO:when=2+', 'inject=pread64:error=EIO'];
    const tracing = ['-P', image, '-e', 'trace=sendfile,pread64', ...faults.flatMap((fault) => ['-e', fault])];
    const served = await serveTraced(path, tracing, '-f', 'raw', '-t', image);
    try {
      const client = await ProtocolClient.negotiate(
        await connect({ kind: 'unix', path }, AbortSignal.timeout(30_000)),
        { replyStyle },
      );
      expect((await client.read(0, MIB)).data.equals(Buffer.alloc(MIB, 7))).toBe(true);
      expect(largePipes(served.pid)).toBe(1);
      for (const lengthBytes of [MIB, 65_536, 512]) {
        const { error, chunkTypes } = await client.read(MIB, lengthBytes);
        const expected = { error: NBD_EIO, chunkTypes: replyStyle === 'simple' ? [] : [NBD_REPLY_TYPE_ERROR] };
        expect({ error, chunkTypes }).toEqual(expected);
      }
      expect(await client.write(0, Buffer.alloc(512))).toMatchObject({ error: 0 });
      expect(await client.disconnect()).toBeUndefined();
      expect(await served.stop()).toBe(0);
    } finally {
      served.kill();
      rmSync(folder, { recursive: true });
    }
  },
);
