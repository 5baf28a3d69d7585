import { afterAll, afterEach, beforeAll, describe, test } from 'vitest';
import { assertQuietKernel, type Background, memoryDir } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbdClient } from '../kernel/programs.js';
import { calls, expectCleanKills, otherCalls } from './kills.js';

let socket = '';
let server: Background | undefined;
beforeAll(async () => {
  socket = `${await memoryDir('server')}/sock`;
  server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
});
afterAll(() => server?.stop('KILL'));

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

describe.each([
  { api: 'netlink', kindsOfCalls: calls },
  // Over a unix socket it sets no option of one.
  { api: 'ioctl', kindsOfCalls: otherCalls.filter((kind) => kind !== 'setsockopt') },
])('a remote attach by $api that is killed', ({ api, kindsOfCalls }) => {
  test.each(kindsOfCalls)('at the n-th of its calls %s leaves the device to the next', (kinds) =>
    expectCleanKills(kinds, `node ${tsnbdClient} -nofork -kernel-api ${api} -unix ${socket} /dev/nbd0`),
  );
});
