import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { connect } from '#tsnbd/transport/connect.js';
import { ProtocolClient } from '../server/protocol-client.js';
import { serveExportsTraced, succeed } from './served.js';

const CLUSTER_BYTES = 65_536;

test('an image whose tables cannot be written at the end keeps no other from being closed, and each is told', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-closing-'));
  const pathOf = (name: string) => join(folder, `${name}.qcow2`);
  const names = ['full', 'whole', 'fuller'];
  for (const name of names) await succeed('qemu-img', 'create', '-q', '-f', 'qcow2', pathOf(name), '1M');
  const socket = join(folder, 'socket');
  // Of each of the two, what comes behind the client's data: its tables, which wait for the end.
  const failing = ['-P', pathOf('full'), '-P', pathOf('fuller'), '-e', 'inject=pwrite64:error=ENOSPC:when=3+'];
  const exports = names.map((name) => `${name}=${pathOf(name)}`);
  const options = ['-t', '-f', 'qcow2', '--cache', 'unsafe'];
  const served = await serveExportsTraced(socket, ['-e', 'trace=pwrite64', ...failing], ...options, ...exports);
  try {
    for (const exportName of names) {
      const wire = await connect({ kind: 'unix', path: socket }, AbortSignal.timeout(30_000));
      const client = await ProtocolClient.negotiate(wire, { exportName });
      expect(await client.write(0, Buffer.alloc(CLUSTER_BYTES, 7))).toMatchObject({ error: 0 });
      await client.disconnect();
    }
    expect(await served.stop()).not.toBe(0);
    const opened = openImage(pathOf('whole'), { readOnly: true });
    const image = imageFrom(opened.handle);
    const disk = Buffer.alloc(CLUSTER_BYTES);
    expect(image.read(0, CLUSTER_BYTES, disk, 0)).toBe(0);
    image.close();
    opened.close();
    expect(disk.equals(Buffer.alloc(CLUSTER_BYTES, 7))).toBe(true);
    for (const name of ['full', 'fuller'])
      expect(served.said()).toMatch(`what was written to ${pathOf(name)} could not`);
  } finally {
    served.kill();
    rmSync(folder, { recursive: true });
  }
});
