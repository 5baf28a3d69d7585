import { expect, test } from 'vitest';
import { memoryDir, ok, run, until } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClient } from '../kernel/programs.js';
import { long } from '../long.js';

const ROUNDS = long ? 20 : 2;

/** The processes of programs, as `PID COMMAND`. Those of the bench itself, of ps too, are others each time. */
async function processes(): Promise<string[]> {
  const all = (await ok('ps -e --no-headers -o pid= -o args=')).split('\n').map((line) => line.trim());
  return all.filter((line) => line !== '' && !/^[0-9]+ \[|kernel-bench|ps -e --no-headers/.test(line));
}

test(`${ROUNDS} rounds of whole commands, both programs in turn, leave no process, file or busy device`, async () => {
  const image = await newImage('16M');
  const socket = `${await memoryDir('server')}/sock`;
  const server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
  const before = await processes();
  const ofImage = `${tsnbd} -c /dev/nbd0 -f raw ${image} && ${tsnbd} -d /dev/nbd0`;
  const ofRemote = `${tsnbdClient} -unix ${socket} /dev/nbd0 && ${tsnbdClient} -d /dev/nbd0`;
  await ok(`for i in $(seq ${ROUNDS / 2}); do { ${ofImage} && ${ofRemote}; } || exit 1; done`, { limitMs: 1_700_000 });
  await expectNothingLeft();
  // What an earlier test started may end meanwhile.
  expect((await processes()).filter((each) => !before.includes(each))).toEqual([]);
  await server.stop('KILL');
});

test('the module is not unloaded under a device; without it a command says so, and with it again all is as before', async () => {
  const image = await newImage('16M');
  const attach = (api: string) => `${tsnbd} --kernel-api=${api} -c nbd0 -f raw ${image}`;
  try {
    for (const api of ['netlink', 'ioctl']) {
      await ok(`${attach(api)} && ! modprobe -r nbd 2>/dev/null && dd if=/dev/nbd0 of=/dev/null bs=1M status=none`);
      await ok(`${tsnbd} -d nbd0`);
      await until('modprobe -r nbd'); // the kernel lets go of the module a moment after the device is free
      expect(await run(`${tsnbd} -d nbd0`)).toMatchObject({
        status: 4,
        stderr: 'tsnbd: the nbd module is not loaded; load it with: modprobe nbd max_part=8\n',
      });
      await ok('modprobe nbd max_part=16 nbds_max=8');
    }
  } finally {
    await run('modprobe nbd max_part=16 nbds_max=8');
  }
  await expectNothingLeft();
});
