import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClientHere } from './programs.js';
import { hears } from './supervised.js';

// What needs netlink, where there is none and nobody said so: the kernel refuses its socket.

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

/** `which` of a process's sockets, as strace counts them, are refused. */
const refusing = (which: string) =>
  `strace -f --seccomp-bpf -qq -o /dev/null -e trace=socket -e inject=socket:error=EAFNOSUPPORT:when=${which}`;

test('a device that is to outlive its server, or its process, is refused where the kernel has no netlink for nbd', async () => {
  const image = await newImage('4M');
  for (const option of ['--persist', '--dead-timeout=60']) {
    expect(await run(`${refusing('1+')} ${tsnbd} -c nbd0 ${option} -f raw ${image}`)).toEqual({
      status: 6,
      stdout: '',
      stderr: expect.stringMatching(
        /^tsnbd: --persist and --dead-timeout need netlink.*: by ioctl a device ends with its/,
      ),
    });
    await expectNothingLeft();
  }
  const socket = `${await memoryDir('server')}/sock`;
  const server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
  const attach = `-unix ${socket} nbd0`;
  expect(await run(`${refusing('2+')} ${tsnbdClientHere} ${attach} -persist`)).toMatchObject({
    status: 6,
    stderr: expect.stringMatching(
      /^tsnbd-client: --persist needs netlink.*: by ioctl a device that is in use cannot come/m,
    ),
  });
  await expectNothingLeft();
  // Unless it must, it does without, and says so.
  const client = await background(`exec ${refusing('2')} ${tsnbdClientHere} ${attach}`);
  await hears(
    client,
    /^tsnbd-client: nobody connects again when the connection is lost: that needs netlink[\s\S]*sz=/m,
  );
  expect(await ok('cat /sys/block/nbd0/size; ls /sys/block/nbd0/backend || true')).toBe('32768');
  expect(await client.stop()).toMatchObject({ status: 0 });
  await server.stop('KILL');
});
