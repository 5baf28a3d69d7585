import { afterEach, expect, test, vi } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd } from './programs.js';

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

test('a command has the device while it runs, and its status is the result', async () => {
  const image = await newImage('64M');
  const work = 'printf "%s " $TSNBD_DEVICE; blockdev --getsize64 $TSNBD_DEVICE; mkfs.ext4 -q $TSNBD_DEVICE; exit 7';
  expect(await run(`${tsnbd} run -f raw ${image} -- sh -c '${work}'`)).toEqual({
    status: 7,
    stdout: '/dev/nbd0 67108864\n',
    stderr: '',
  });
  await expectNothingLeft();
  expect(await ok(`blkid -o value -s TYPE ${image}`)).toBe('ext4');

  const absent = await run(`${tsnbd} run -f raw ${image} -- /nowhere/absent`);
  expect(absent).toEqual({
    status: 127,
    stdout: '',
    stderr: 'tsnbd: cannot run /nowhere/absent: there is no such command\n',
  });
  await expectNothingLeft();

  const socket = `${await memoryDir('run')}/sock`;
  const server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
  const remote = `${tsnbd} run -c nbd3 'nbd+unix:///?socket=${socket}'`;
  expect(await ok(`${remote} -- sh -c 'echo $TSNBD_DEVICE; blockdev --getsize64 $TSNBD_DEVICE'`)).toBe(
    '/dev/nbd3\n16777216',
  );
  await server.stop('KILL');
});

test('it is detached when ^C or a signal ends the command, or comes before it', async () => {
  const image = await newImage('4M');
  const said = (command: Awaited<ReturnType<typeof background>>) =>
    vi.waitFor(() => expect(command.output().stdout).toBe('runs\n'), 20_000);

  const interrupted = await background(`exec ${tsnbd} run -f raw ${image} -- sh -c 'echo runs; exec sleep 100'`);
  await said(interrupted);
  expect(await interrupted.stop('INT')).toMatchObject({ status: 130, stderr: '' }); // the whole group, as a terminal does
  await expectNothingLeft();

  const ended = await background(`exec ${tsnbd} run -f raw ${image} -- sh -c 'echo runs; exec sleep 100'`);
  await said(ended);
  await ok(`kill -TERM ${ended.pid}`); // this program alone
  expect(await ended.result).toMatchObject({ status: 143, stderr: '' });
  await expectNothingLeft();

  const early = await background(`exec ${tsnbd} run -v -f raw ${image} -- echo runs`);
  await vi.waitFor(() => expect(early.output().stderr).toContain('start the worker'), 20_000);
  await ok(`kill -INT ${early.pid}`);
  expect(await early.result).toMatchObject({ status: 130, stdout: '' });
});

test('a device whose server is gone at the end is cut, and what that loses is told', async () => {
  const socket = `${await memoryDir('run')}/sock`;
  const lost = /^tsnbd: \/dev\/nbd0 was cut off: its server is gone, .*what was not written yet is lost$/m;
  const end = async (command: string, options = '') => {
    const server = await startServer(`nbdkit -f ${options} -U ${socket} memory 16M`, isSocket(socket));
    const gone = `kill -KILL ${server.pid}; rm ${socket}; until ${tsnbd} ls | grep -q reconnecting; do sleep 0.1; done`;
    const result = await run(`${tsnbd} run 'nbd+unix:///?socket=${socket}' -- sh -c '${gone}; ${command}'`);
    await expectNothingLeft();
    return result;
  };
  expect(await end('exit 0')).toMatchObject({ status: 8, stdout: '', stderr: expect.stringMatching(lost) });
  expect(await end('exit 3')).toMatchObject({ status: 3, stderr: expect.stringMatching(lost) });
  const readOnly = await end('exit 0', '-r');
  expect(readOnly.status).toBe(0);
  expect(readOnly.stderr).not.toMatch(/lost$/m);
});

test('what the command leaves mounted stays attached, and is told', async () => {
  const image = await newImage('64M');
  const dir = await memoryDir('run');
  const work = `mkfs.ext4 -q $TSNBD_DEVICE && mount $TSNBD_DEVICE ${dir}`;
  const result = await run(`${tsnbd} run -f raw ${image} -- sh -c '${work}'`);
  expect(result).toMatchObject({ status: 5, stdout: '' });
  expect(result.stderr).toContain(`/dev/nbd0 is in use: /dev/nbd0 is mounted on ${dir}`);
  await ok(`umount ${dir} && ${tsnbd} -d nbd0`);
});
