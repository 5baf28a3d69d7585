import { afterAll, afterEach, beforeAll, describe, test } from 'vitest';
import { assertQuietKernel, type Background, memoryDir } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbdClient } from '../kernel/programs.js';
import { calls, expectCleanKills } from './kills.js';

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

describe('a remote attach that is killed', () => {
  test.each(calls)('at the n-th of its calls %s leaves the device free for the next', (kinds) =>
    expectCleanKills(kinds, `${tsnbdClient} -nofork -unix ${socket} /dev/nbd0`),
  );
});
