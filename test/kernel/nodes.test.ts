import { afterEach, expect, test } from 'vitest';
import { longTest } from '../long.js';
import { assertQuietKernel, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, newImage, TWO_PARTITIONS, tsnbd } from './programs.js';

afterEach(async () => {
  await run('pkill systemd-udevd; rm -rf /run/udev');
  await expectNothingLeft();
  await assertQuietKernel();
});

test('a partition is waited for by number or label, with --long by UUID and in vain too, and its node printed', async () => {
  const image = await newImage('80M');
  const attach = `${tsnbd} -c auto -f raw ${image}`;
  await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
  const uuid = '12345678-1234-1234-1234-123456789abc';
  const first = `${attach} --wait-partition 2 && mkfs.ext4 -q -L 'a b' -U ${uuid} /dev/nbd0p2 && ${tsnbd} -d nbd0`;
  expect(await ok(first)).toBe('/dev/nbd0p2\n/dev/nbd0 disconnected');
  expect(await ok(`${attach} --wait-partition 'label=a b'`)).toBe('/dev/nbd0p2');
  await ok(`${tsnbd} -d nbd0`);
  if (process.env.TSNBD_TEST_LONG !== '1') return;
  expect(await ok(`${attach} --wait-partition uuid=${uuid}`)).toBe('/dev/nbd0p2');
  await ok(`${tsnbd} -d nbd0`);
  expect(await run(`${attach} --wait-partition 3`)).toEqual({
    status: 7,
    stdout: '',
    stderr: 'tsnbd: waited 10 s in vain for partition 3 on /dev/nbd0\n',
  });
});

test('where nobody makes nodes, as in a container, they are made, and gone afterwards', async () => {
  const image = await newImage('80M');
  const dir = await memoryDir('dev');
  await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
  const inside = [
    `for node in null zero urandom full tty; do touch ${dir}/$node && mount --bind /dev/$node ${dir}/$node; done`,
    `mount --bind ${dir} /dev`,
    `${tsnbd} -c nbd0 -f raw ${image} && stat -c '%t:%T %n' /dev/nbd0*`,
    'head -c 512 /dev/nbd0p2 | wc -c',
    `${tsnbd} -d nbd0 && ls /dev`,
  ];
  expect(await ok(`unshare -m sh -ec '${inside.join('\n').replaceAll("'", `'\\''`)}'`)).toBe(
    [
      '2b:0 /dev/nbd0',
      '2b:1 /dev/nbd0p1',
      '2b:2 /dev/nbd0p2',
      '512',
      '/dev/nbd0 disconnected',
      'full\nnull\ntty\nurandom\nzero',
    ].join('\n'),
  );
});

longTest('udev does not see volumes of LVM and md on a device, unless it may', async () => {
  const image = await newImage('16M');
  await ok(`printf 'HM\\001\\0' | dd of=${image} conv=notrunc status=none`); // what LVM 1 begins with
  const seen = 'udevadm info -q property /dev/nbd0 | grep ^ID_FS_TYPE; cat /tmp/activated 2>/dev/null';
  const rule = 'SUBSYSTEM=="block", ENV{ID_FS_TYPE}=="LVM1_member", RUN+="/bin/sh -c \'echo %k >>/tmp/activated\'"';
  await ok(
    `mkdir -p /run/udev/rules.d && cat >/run/udev/rules.d/69-as-lvm.rules <<'END'\n${rule}\nEND\n/lib/systemd/systemd-udevd --daemon`,
  );
  expect(await ok(`${tsnbd} -c nbd0 -f raw ${image}; ${seen}; ls /run/udev/rules.d; ${tsnbd} -d nbd0`)).toBe(
    '62-tsnbd-nbd0.rules\n69-as-lvm.rules\n/dev/nbd0 disconnected',
  );
  expect(await ok(`${tsnbd} -c auto -f raw ${image}; ${seen}; ${tsnbd} -d nbd0; ls /run/udev/rules.d`)).toBe(
    '/dev/nbd0\n/dev/nbd0 disconnected\n69-as-lvm.rules',
  );
  expect(await ok(`${tsnbd} --allow-volumes -c nbd0 -f raw ${image}; ${seen}; ${tsnbd} -d nbd0`)).toMatch(
    /^ID_FS_TYPE=LVM1_member\nnbd0\n/,
  );
});
