import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until } from './guest.js';
import { expectFree, expectNothingLeft, newImage, tsnbd } from './programs.js';

// Whose a device is, and what a user may choose of it where netlink sets it up: an identifier and the client's flags are
// attributes of nbd_genl_connect and nbd_genl_reconfigure, and no ioctl of __nbd_ioctl has them.

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

const KILL = 'pkill -KILL -f attach-process.js; until ! pgrep -f attach-process.js; do sleep 0.1; done';

test('an identifier stands in sysfs, and a device is taken over only while it does', async () => {
  const image = await newImage('4M');
  const again = `${tsnbd} -i blue -c nbd0 -f raw ${image}`;
  await ok(`${again} && ${KILL}`);
  expect(await ok('cat /sys/block/nbd0/backend')).toBe('blue');
  await ok(`${again} 2>/dev/null && ${KILL}`); // a leftover of ours
  await ok(
    `cp -a /run/tsnbd/nbd0.json /tmp/blue.json && ${tsnbd} -d nbd0 2>/dev/null && test ! -e /sys/block/nbd0/pid`,
  );

  // The same state file beside a device that another program has connected since.
  const server = `${tsnbd} -k /tmp/blue.sock -f raw ${image}`;
  await ok(
    `(${server} &) ; until test -S /tmp/blue.sock; do sleep 0.1; done; nbd-client -unix /tmp/blue.sock /dev/nbd0`,
  );
  await ok('mkdir -p /run/tsnbd && cp -a /tmp/blue.json /run/tsnbd/nbd0.json');
  expect(await run(again)).toMatchObject({ status: 5 });
  await ok(`test -e /sys/block/nbd0/pid && nbd-client -d /dev/nbd0 && rm -rf /run/tsnbd/nbd0.json`);
});

test.each(['netlink', 'ioctl'])(
  'a process is not taken for the one behind a device because it has its number (%s)',
  async (api) => {
    const image = await newImage('4M');
    const attach = `${tsnbd} --kernel-api=${api} -c nbd0 -f raw ${image}`;
    await ok(`${attach} && ${KILL}`);
    if (api === 'ioctl') await expectFree();
    const bystander = await background('exec sleep 1000');
    const reuse = `sed -i 's/"pid":[0-9]*/"pid":${bystander.pid}/' /run/tsnbd/nbd0.json`;
    await ok(`${reuse} && grep -q '"pid":${bystander.pid},' /run/tsnbd/nbd0.json`);
    expect(await ok(`${tsnbd} ls --json`)).not.toContain(`${bystander.pid}`);
    await ok(`${tsnbd} -d nbd0 && ${attach} && ${KILL}`);
    if (api === 'ioctl') await expectFree();
    await ok(`${reuse} && ${attach} && ${tsnbd} -d nbd0`); // the next attach takes it down, too
    await ok(`kill -0 ${bystander.pid}`);
    await bystander.stop();
  },
);

test('a device that is to be destroyed is gone when it is detached', async () => {
  const image = await newImage('4M');
  await ok(`${tsnbd} --destroy-on-disconnect -c nbd9 -f raw ${image} && test -b /dev/nbd9`);
  expect(await ok(`${tsnbd} -d nbd9`)).toBe('/dev/nbd9 disconnected');
  await ok('test ! -e /sys/block/nbd9 && test ! -e /dev/nbd9');
});

test('a device is detached by umount, but not by who looks at it before', async () => {
  const image = await newImage('64M');
  const dir = await memoryDir('mount');
  await ok(`mkfs.ext4 -q ${image} && ${tsnbd} --disconnect-on-close -c nbd0 -f raw ${image}`);
  await ok('for i in 1 2 3; do : </dev/nbd0; done; sleep 0.3; test -e /sys/block/nbd0/pid');
  await ok(
    `mount /dev/nbd0 ${dir} && head -c 8M /dev/urandom >${dir}/file && sha256sum <${dir}/file >/tmp/sum; sleep 1`,
  );
  await ok(`umount ${dir}`);
  await expectNothingLeft();
  // The next has it neither; a command may leave it to its mount.
  await ok(`${tsnbd} -c nbd0 -f raw ${image} && mount /dev/nbd0 ${dir} && sha256sum <${dir}/file | cmp - /tmp/sum`);
  await ok(`umount ${dir}; sleep 0.5; test -e /sys/block/nbd0/pid && ${tsnbd} -d nbd0`);
  // It may unmount it itself, too: only what it leaves behind is what the device ends with.
  const work = `mount $TSNBD_DEVICE ${dir} && sleep 1 && umount ${dir} && mount $TSNBD_DEVICE ${dir}`;
  const command = `${tsnbd} run --disconnect-on-close -f raw ${image} -- sh -c '${work}'`;
  expect(await run(command)).toEqual({ status: 0, stdout: '', stderr: '' });
  await ok(`test -e /sys/block/nbd0/pid && umount ${dir}`);
  await until('! test -e /sys/block/nbd0/pid');
});
