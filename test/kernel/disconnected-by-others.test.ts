import { afterEach, expect, test, vi } from 'vitest';
import { assertQuietKernel, type Background, background, memoryDir, ok } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbdClientHere } from './programs.js';

// A remote device that somebody watches over, and somebody else disconnects: the kernel behind its last user (nbd_release, with
// a flag that no ioctl sets), or a program. By ioctl nobody watches: NBD_DO_IT returns (nbd_start_device_ioctl).

const started: Background[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop('KILL');
  for (const device of ['nbd0', 'nbd1', 'nbd2']) await expectNothingLeft(device);
  await assertQuietKernel();
});

const hears = (client: Background, text: RegExp) =>
  vi.waitFor(() => expect(client.output().stderr).toMatch(text), 60_000);

test('is not connected again; and one that was given up has not been detached', async () => {
  const folder = await memoryDir('others');
  await ok(`cd ${folder} && mkdir m0 m1 m2 && truncate -s 16M disk && mkfs.ext4 -q disk && cp disk 1 && cp disk 2`);
  const serve = async (name: string, image: string) => {
    const socket = `${folder}/${name}.sock`;
    const server = await startServer(`nbdkit -f -U ${socket} file ${folder}/${image}`, isSocket(socket));
    started.push(server);
    return server;
  };
  const attach = async (device: string, server: string, options: string) => {
    const client = await background(`exec ${tsnbdClientHere} -unix ${folder}/${server}.sock /dev/${device} ${options}`);
    started.push(client);
    await hears(client, /sz=/);
    await ok(`mount /dev/${device} ${folder}/${device.replace('nbd', 'm')} && sleep 1`);
    return client;
  };
  await serve('zero', 'disk');
  await serve('one', '1');
  const killed = await serve('two', '2');
  const unmounted = await attach('nbd0', 'zero', '--disconnect-on-close');
  const disconnected = await attach('nbd1', 'one', '');
  const givenUp = await attach('nbd2', 'two', '--disconnect-on-close --retry-limit 1');

  await ok(`umount ${folder}/m0`);
  const first = await unmounted.result;
  expect(first).toMatchObject({ status: 0, stderr: expect.not.stringMatching(/lost|connect/) });

  // It is in use, so it keeps its mark: the kernel refuses to give it a connection.
  await ok('nbd-client -d /dev/nbd1');
  const second = await disconnected.result;
  expect(second).toMatchObject({ status: 8, stderr: expect.not.stringContaining('refuses') });

  await killed.stop('KILL');
  const third = await givenUp.result;
  expect(third).toMatchObject({ status: 8, stderr: expect.stringContaining('giving up') });
  await ok(`umount ${folder}/m1 ${folder}/m2`);
});
