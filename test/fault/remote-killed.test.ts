import { afterAll, afterEach, beforeAll, describe, test } from 'vitest';
import { assertQuietKernel, type Background, memoryDir } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbdClient } from '../kernel/programs.js';
import { apis, calls, expectCleanKills } from './kills.js';

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

describe.each(apis)('a remote attach by %s that is killed', (api) => {
  test.each(calls)('at the n-th of its calls %s leaves the device to the next', (kinds) =>
    expectCleanKills(kinds, `node ${tsnbdClient} -nofork -kernel-api ${api} -unix ${socket} /dev/nbd0`),
  );
});
