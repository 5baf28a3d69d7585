import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok, run } from './guest.js';
import { isSocket, startServer, tsnbd } from './programs.js';
import { dropStorage, ext4Folder } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await assertQuietKernel();
});

test.each([
  ['1', 0],
  ['0', 2],
])('a client is told whether the disk below an image turns (its queue says %s)', async (says, status) => {
  const folder = await ext4Folder('64M');
  const device = await ok(`df --output=source ${folder} | tail -n 1`);
  const socket = `${await memoryDir('storage')}/socket`;
  await ok(`echo ${says} >/sys/block/${device.replace('/dev/', '')}/queue/rotational && truncate -s 1M ${folder}/disk`);
  const server = await startServer(`${tsnbd} -t -k ${socket} -f raw ${folder}/disk`, isSocket(socket));
  // nbdinfo: 0 is yes, 2 is no.
  expect((await run(`nbdinfo --is rotational nbd+unix:///?socket=${socket}`)).status).toBe(status);
  expect((await server.stop()).status).toBe(0);
});
