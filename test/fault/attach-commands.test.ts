import { expect, test } from 'vitest';
import { memoryDir, ok } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClient } from '../kernel/programs.js';

const ROUNDS = process.env.TSNBD_TEST_LONG === '1' ? 20 : 4;

test(`${ROUNDS} rounds of whole commands, both programs in turn, leave no process, file or busy device`, async () => {
  const image = await newImage('16M');
  const socket = `${await memoryDir('server')}/sock`;
  const server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
  const processes = await ok('ps -e --no-headers | grep -cv "kworker\\|\\[" ');
  const ofImage = `${tsnbd} -c /dev/nbd0 -f raw ${image} && ${tsnbd} -d /dev/nbd0`;
  const ofRemote = `${tsnbdClient} -unix ${socket} /dev/nbd0 && ${tsnbdClient} -d /dev/nbd0`;
  await ok(`for i in $(seq ${ROUNDS / 2}); do { ${ofImage} && ${ofRemote}; } || exit 1; done`, { limitMs: 1_700_000 });
  await expectNothingLeft();
  expect(await ok('ps -e --no-headers | grep -cv "kworker\\|\\[" ')).toBe(processes);
  await server.stop('KILL');
});
