import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, TWO_PARTITIONS, tsnbd, tsnbdClient } from './programs.js';

afterEach(async () => {
  await run('pkill systemd-udevd; rm -rf /run/udev');
  await expectNothingLeft();
  await assertQuietKernel();
});

test('a partition is waited for by number, label or UUID, and its node printed; one that is not there in vain', async () => {
  const image = await newImage('80M');
  const attach = `${tsnbd} -c auto -f raw ${image}`;
  await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image} && cp ${image} ${image}.copy`);
  const vain = await background(`exec ${tsnbd} -c nbd5 -f raw ${image}.copy --wait-partition 3`);
  const uuid = '12345678-1234-1234-1234-123456789abc';
  const first = `${attach} --wait-partition 2 && mkfs.ext4 -q -L 'a b' -U ${uuid} /dev/nbd0p2 && ${tsnbd} -d nbd0`;
  expect(await ok(first)).toBe('/dev/nbd0p2\n/dev/nbd0 disconnected');
  expect(await ok(`${attach} --wait-partition 'label=a b'`)).toBe('/dev/nbd0p2');
  await ok(`${tsnbd} -d nbd0`);
  expect(await ok(`${attach} --wait-partition uuid=${uuid}`)).toBe('/dev/nbd0p2');
  await ok(`${tsnbd} -d nbd0`);
  expect(await vain.result).toEqual({
    status: 7,
    stdout: '',
    stderr: 'tsnbd: waited 10 s in vain for partition 3 on /dev/nbd5\n',
  });
  await expectNothingLeft('nbd5');
});

/** Runs a script of sh in a /dev of its own, in which nobody makes nodes. */
async function withoutNodes(lines: readonly string[]): Promise<string> {
  const dir = await memoryDir('dev');
  const inside = [
    `for node in null zero urandom full tty; do touch ${dir}/$node && mount --bind /dev/$node ${dir}/$node; done`,
    `mount --bind ${dir} /dev`,
    ...lines,
  ];
  return ok(`unshare -m sh -ec '${inside.join('\n').replaceAll("'", `'\\''`)}'`);
}
/** Prints the process behind nbd0, which is the first number in its state file. */
const PID = 'grep -o "[0-9]*" /run/tsnbd/nbd0.json | head -n 1';
const kill = `kill -KILL $(${PID})`;
const NO_NODES = 'full\nnull\ntty\nurandom\nzero';
const DETACHED = '/dev/nbd0 disconnected';

test('where nobody makes nodes, as in a container, they are made, and gone afterwards', async () => {
  const image = await newImage('80M');
  await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
  const script = [
    `${tsnbd} -c nbd0 -f raw ${image} && stat -c '%t:%T %n' /dev/nbd0*`,
    'head -c 512 /dev/nbd0p2 | wc -c',
    `${tsnbd} -d nbd0 && ls /dev`,
  ];
  expect(await withoutNodes(script)).toBe(
    ['2b:0 /dev/nbd0', '2b:1 /dev/nbd0p1', '2b:2 /dev/nbd0p2', '512', DETACHED, NO_NODES].join('\n'),
  );
});

test('nodes that were made are gone behind a process that was killed or replaced, and where none stays', async () => {
  const image = await newImage('80M');
  await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
  const socket = `${await memoryDir('nodes')}/sock`;
  const server = await startServer(`nbdkit -f -U ${socket} file ${image}`, isSocket(socket));
  const isUp = 'test -b /dev/nbd0p2';
  const attach = (api: string) => `${tsnbd} -c nbd0 --kernel-api=${api} -f raw ${image} && ${isUp}`;
  const detach = `${tsnbd} -d nbd0 && ls /dev`;
  const script = [
    `${attach('netlink')}; ${tsnbd} restart nbd0 >/dev/null; ${isUp}; ${detach}`,
    `${attach('netlink')}; ${tsnbd} restart nbd0 >/dev/null; kill $(${PID})`,
    'for try in $(seq 100); do test -e /dev/nbd0 || break; sleep 0.1; done; ls /dev',
    `${attach('netlink')}; ${kill}; ${detach}`,
    `${attach('netlink')}; ${kill}; ${attach('netlink')}; ${detach}`,
    `${attach('ioctl')}; ${kill}; while test -e /sys/block/nbd0/pid; do sleep 0.1; done; ${attach('ioctl')}; ${detach}`,
    `${attach('ioctl')}; ${kill}; while test -e /sys/block/nbd0/pid; do sleep 0.1; done; ${detach}`,
    `${tsnbdClient} --no-persist -unix ${socket} nbd0 >/dev/null && ${isUp}; ${detach}`,
  ];
  const gone = `${DETACHED}\n${NO_NODES}`;
  expect(await withoutNodes(script)).toBe([gone, NO_NODES, ...Array(5).fill(gone)].join('\n'));
  await server.stop('KILL');
});

const RULES = '/run/udev/rules.d';
const WAIT = 'until udevadm control --ping; do sleep 0.1; done';
/** udevd, which has seen every device once, and these rules. */
async function startUdev(rules: string): Promise<void> {
  const start = '/lib/systemd/systemd-udevd --daemon; udevadm trigger --subsystem-match=block; udevadm settle';
  await ok(`mkdir -p ${RULES} && cat >${RULES}/59-test.rules <<'END'\n${rules}\nEND\n${start}; ${WAIT}`);
}

test.each(['netlink', 'ioctl'])('udev is waited for, also with a device that it has seen before (%s)', async (api) => {
  const image = await newImage('16M');
  await ok(`mkfs.ext4 -q ${image}`);
  await startUdev('ACTION=="change", KERNEL=="nbd0", PROGRAM="/bin/sleep 0.7"');
  const attach = `${tsnbd} -c nbd0 --kernel-api=${api} -f raw ${image}`;
  const seen = 'udevadm info -q property /dev/nbd0 | grep ^ID_FS_TYPE';
  const end = `${tsnbd} -d nbd0`;
  expect(await ok(`${attach}; ${seen}; ${end}; ${attach}; ${seen}; ${end}`)).toBe(
    `ID_FS_TYPE=ext4\n${DETACHED}\nID_FS_TYPE=ext4\n${DETACHED}`,
  );
  if (api === 'ioctl') return;
  await ok(`sed -i s/0.7/7/ ${RULES}/59-test.rules && udevadm control --reload`);
  expect(await run(attach)).toEqual({
    status: 0,
    stdout: '',
    stderr: 'tsnbd: udev is not done with /dev/nbd0 after 5 s; what it makes of it, as in /dev/disk, comes later\n',
  });
  await ok(end);
});

test('a rule for a device is gone with it, however it went, and hides nothing from who may see it', async () => {
  const image = await newImage('16M');
  await ok(`printf 'HM\\001\\0' | dd of=${image} conv=notrunc status=none`); // what LVM 1 begins with
  await startUdev('# none');
  const rules = `ls ${RULES} | grep tsnbd || echo no rule`;
  const attach = (device: string, more = '') => `${tsnbd} ${more} -c ${device} -f raw ${image}`;
  expect(await ok(`${attach('auto')}; ${rules}; ${kill}; ${tsnbd} -d nbd0; ${rules}`)).toBe(
    `/dev/nbd0\n62-tsnbd-nbd0.rules\n${DETACHED}\nno rule`,
  );
  const again = attach('nbd0', '--allow-volumes');
  const seen = 'udevadm info -q property /dev/nbd0 | grep ^ID_FS_TYPE || echo hidden';
  expect(await ok(`${attach('nbd0')}; ${seen}; ${kill}; ${again}; ${rules}; ${seen}; ${tsnbd} -d nbd0`)).toBe(
    `hidden\nno rule\nID_FS_TYPE=LVM1_member\n${DETACHED}`,
  );
  const taken = `${attach('nbd0')} 2>/dev/null || echo taken`;
  expect(
    await ok(`${attach('nbd0')}; ${taken}; ${rules}; ${tsnbd} restart nbd0 >/dev/null; ${tsnbd} -d nbd0; ${rules}`),
  ).toBe(`taken\n62-tsnbd-nbd0.rules\n${DETACHED}\nno rule`);
});

test('udev does not see volumes of LVM and md on a device, unless it may', async () => {
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
