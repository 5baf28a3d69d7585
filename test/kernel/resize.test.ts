import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClient } from './programs.js';

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

const MIB = 2 ** 20;

// nbd_genl_size_set asks no socket; a connection may be made again behind it, but not for a device of ioctl (nbd_add_socket).
test('a mounted device grows with its export, shrinks by force only, and stays as it is over another connection', async () => {
  const dir = await memoryDir('resize');
  await ok(`cd ${dir} && truncate -s 32M disk && mkfs.ext4 -q disk && mkdir mnt`);
  const serve = () => startServer(`nbdkit -f -U ${dir}/sock file ${dir}/disk`, isSocket(`${dir}/sock`));
  const first = await serve();
  await ok(`${tsnbdClient} -unix ${dir}/sock nbd0 2>/dev/null && mount /dev/nbd0 ${dir}/mnt`);
  await ok(`truncate -s 64M ${dir}/disk`);
  expect(await ok(`${tsnbd} resize nbd0 && blockdev --getsize64 /dev/nbd0`)).toBe(`${64 * MIB}\n${64 * MIB}`);
  await ok(`resize2fs /dev/nbd0 2>/dev/null && head -c 40M /dev/zero >${dir}/mnt/file && sync ${dir}/mnt/file`);

  const refused = async (words: string, status: number, why: string) =>
    expect(await run(`${tsnbd} resize ${words}`)).toEqual({ status, stdout: '', stderr: `tsnbd: ${why}\n` });
  const shrinks = `/dev/nbd0 would shrink from ${64 * MIB} to ${32 * MIB} bytes`;
  await refused('nbd0 32M', 6, `${shrinks}; --force does it, and what lies behind cannot be reached any more`);
  await refused('nbd0 65M', 6, `/dev/nbd0 cannot have ${65 * MIB} bytes: its server has ${64 * MIB}`);
  await ok(`umount ${dir}/mnt`);
  expect(await ok(`${tsnbd} resize --force nbd0 48M && blockdev --getsize64 /dev/nbd0`)).toBe(
    `${48 * MIB}\n${48 * MIB}`,
  );

  await first.stop('KILL');
  await until(`${tsnbd} ls | grep reconnecting`);
  const gone = await run(`${tsnbd} resize nbd0`);
  expect(gone).toMatchObject({ status: 8, stdout: '' });
  await ok(`rm ${dir}/sock`);
  const second = await serve();
  await until(`grep -q ' connected' <<END\n$(${tsnbd} ls)\nEND`);
  expect(await ok('blockdev --getsize64 /dev/nbd0; cat /sys/block/nbd0/size')).toBe(`${48 * MIB}\n${(48 * MIB) / 512}`);
  await ok(`${tsnbd} -d nbd0`);
  await second.stop('KILL');
});

test('a write that its server did not take fails a resize, and the detach behind it, although the kernel tells that once', async () => {
  const dir = await memoryDir('resize');
  await ok(`truncate -s 32M ${dir}/disk`);
  const failing = 'error-pwrite=EIO error-pwrite-rate=100% error-pwrite-file';
  const server = await startServer(
    `nbdkit -f -U ${dir}/sock --filter=error file ${dir}/disk ${failing}=${dir}/fail`,
    isSocket(`${dir}/sock`),
  );
  await ok(`${tsnbdClient} -unix ${dir}/sock nbd0 2>/dev/null && truncate -s 64M ${dir}/disk && touch ${dir}/fail`);
  await run('dd if=/dev/urandom of=/dev/nbd0 bs=64k count=1 status=none'); // its close writes what it wrote
  const lost = 'the server did not take all that was written to /dev/nbd0';
  const resized = await run(`${tsnbd} resize nbd0`);
  expect(resized).toMatchObject({ status: 8, stdout: '' });
  expect(resized.stderr).toContain(lost);
  await ok(`rm ${dir}/fail`);
  const detached = await run(`${tsnbd} -d nbd0`);
  expect(detached).toMatchObject({ status: 8, stdout: '' });
  expect(detached.stderr).toContain(lost);
  expect(await run(`${tsnbd} -d --force nbd0`)).toEqual({
    status: 0,
    stdout: '/dev/nbd0 disconnected\n',
    stderr: 'tsnbd: nobody counted writes that failed: /dev/nbd0 was a remote device\n',
  });
  await server.stop('KILL');
});

test('one of ioctl shrinks by force and grows back, but not beyond its connection; an image keeps its size', async () => {
  const dir = await memoryDir('resize');
  await ok(`truncate -s 32M ${dir}/disk`);
  const server = await startServer(`nbdkit -f -U ${dir}/sock file ${dir}/disk`, isSocket(`${dir}/sock`));
  await ok(`${tsnbdClient} -L -unix ${dir}/sock nbd0 2>/dev/null && truncate -s 64M ${dir}/disk`);
  const beyond = await run(`${tsnbd} resize nbd0`);
  expect(beyond).toMatchObject({ status: 6, stdout: '' });
  expect(beyond.stderr).toContain(`made when the export had ${32 * MIB} bytes`);
  expect(await ok(`${tsnbd} resize --force nbd0 16M && blockdev --getsize64 /dev/nbd0`)).toBe(
    `${16 * MIB}\n${16 * MIB}`,
  );
  expect(await ok(`${tsnbd} resize nbd0 32M && blockdev --getsize64 /dev/nbd0`)).toBe(`${32 * MIB}\n${32 * MIB}`);
  await ok(`dd if=/dev/nbd0 of=/dev/null bs=1M skip=31 status=none && ${tsnbd} -d nbd0`);
  await server.stop('KILL');
  await expectNothingLeft();

  await ok(`${tsnbd} -c nbd0 -f raw ${await newImage('4M')}`);
  const refused = await run(`${tsnbd} resize nbd0 8M`);
  expect(refused).toMatchObject({ status: 6, stdout: '' });
  expect(refused.stderr).toContain('/dev/nbd0 is an image, which keeps its size while it is attached');
  await ok(`${tsnbd} -d nbd0`);
});
