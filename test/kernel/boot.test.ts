import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bootGuest, type Guest } from '../../scripts/kernel-bench-guest.js';
import { freshDir } from './guest.js';
import { tsnbd } from './programs.js';

// systemd as process 1, in a guest of its own: a boot takes half a minute, so it is for the long run (vitest.config.ts), and
// the tests here are the life of one machine, in their order.

const BOOT_LIMIT_MS = 240_000;
const POWER_OFF_LIMIT_MS = 180_000;

const dir = freshDir('boot');
let guest: Guest;

/** Of the first partition of a disk, and of the second. */
const OFFSETS = [2 ** 20, 41 * 2 ** 20];

/** A disk with two partitions, each with a file system that has a file with the name of the disk. */
function makeDisk(name: string): string {
  const [image, files] = [join(dir, `${name}.img`), join(dir, `${name}.files`)];
  mkdirSync(files);
  writeFileSync(join(files, 'name'), `${name}\n`);
  execFileSync('truncate', ['-s', '84M', image]);
  execFileSync('sfdisk', ['-q', image], { input: 'label: gpt\nsize=40M\nsize=40M\n' });
  for (const offset of OFFSETS) {
    execFileSync('mkfs.ext4', ['-q', '-d', files, '-E', `offset=${offset}`, image, '40M']);
  }
  return image;
}

/** A server that is there before the network is. Like NetworkManager it waits for sysinit.target, so for local disks and swap. */
const service = (name: string, port: number, image = '', more = '') => `cat >/etc/systemd/system/${name}.service <<E
[Unit]
Wants=network.target
Before=network.target
[Service]
ExecStart=nbdkit -f -p ${port} file ${image}
ExecStartPost=/bin/sh -c "until grep -qi :${port.toString(16).padStart(4, '0')} /proc/net/tcp; do sleep 0.1; done"
${more}
E
ln -s ../${name}.service /etc/systemd/system/multi-user.target.wants/`;

/** It takes connections, and is silent. */
const SILENT = 'ExecStartPost=/bin/kill -STOP \\$MAINPID';

const remote = (port: number, name: string, options: string) =>
  `nbd://127.0.0.1:${port}/ /mnt/${name} tsnbd _netdev,${options} 0 0`;

const FSTAB = [
  remote(4000, 'remote', 'partition=1'),
  remote(4000, 'auto', 'partition=2,x-systemd.automount,x-systemd.idle-timeout=2'),
  '/mnt/auto/below.img /mnt/below tsnbd noauto 0 0',
  remote(4001, 'dead', 'partition=1,nofail'),
  remote(4001, 'needed', 'partition=2'),
  remote(4002, 'killed', 'partition=1'),
  remote(4003, 'stopped', 'partition=1'),
  // swap.target is there before the network.
  '/dev/nbd5 none swap noauto,_netdev 0 0',
  '/srv/images/local.img /mnt/local\\\\040disk tsnbd partition=1 0 0',
].join('\n');

/** The output of a script, by lines. */
async function told(script: string): Promise<string[]> {
  const { stdout, stderr } = await guest.run(script, { cwd: '/', limitMs: 120_000 });
  return `${stdout}${stderr}`.trimEnd().split('\n');
}

beforeAll(async () => {
  const [, served, killed, stopped] = ['local', 'remote', 'killed', 'stopped'].map(makeDisk);
  guest = await bootGuest({
    systemd: `${tsnbd} install
(cd /mnt && mkdir 'local disk' remote auto dead needed killed stopped)
mkdir -p /etc/systemd/system/multi-user.target.wants /etc/tsnbd
ln -s /lib/systemd/system/remote-fs.target /etc/systemd/system/multi-user.target.wants/
cat >/etc/fstab <<E
${FSTAB}
E
${service('server', 4000, served)}
${service('dead', 4001, served, SILENT)}
${service('killed', 4002, killed)}
${service('stopped', 4003, stopped)}
# systemd takes all that is below /dev for a device.
ln -s ${dir} /srv/images
truncate -s 16M ${dir}/swap && mkswap -q ${dir}/swap
echo 'OPTIONS=-f raw ${dir}/swap' >/etc/tsnbd/nbd5.conf`,
    workDir: dir,
    limitMs: BOOT_LIMIT_MS,
  });
}, BOOT_LIMIT_MS + 30_000);

afterAll(() => {
  guest?.destroy();
  rmSync(dir, { recursive: true });
});

test('systemd mounts each line whose server answers, and swaps; a server that is silent holds up nothing', async () => {
  const seen = await told(`cd /mnt; cat 'local disk/name' remote/name killed/name stopped/name
systemctl is-active 'mnt-local\\x20disk.mount' mnt-remote.mount tsnbd@nbd5 dev-nbd5.swap multi-user.target
systemctl show -P After mnt-remote.mount | grep -o network-online.target
# Whose server is silent is given up later: nobody has waited for it.
while systemctl list-units --plain --no-legend 'tsnbd-mnt-dead-*' 'tsnbd-mnt-needed-*' | grep -q .; do sleep 0.2; done
systemctl list-units --plain --no-legend 'tsnbd-*' | sed 's/-[0-9]*.service.*//'
journalctl -b -o cat | grep 'ordering cycle'
journalctl -u 'mnt-local\\x20disk.mount' -o cat | grep ^mount.tsnbd:`);
  expect(seen).toEqual([
    ...['local', 'remote', 'killed', 'stopped'],
    ...['active', 'active', 'active', 'active', 'active', 'network-online.target'],
    ...['tsnbd-mnt-killed', 'tsnbd-mnt-local\\x20disk', 'tsnbd-mnt-remote', 'tsnbd-mnt-stopped'],
    expect.stringMatching(/^mount.tsnbd: .*local.img is taken for raw, .*; say format=raw if it is$/),
  ]);
  const failed = await told(`for name in dead needed; do
  systemctl show -P Result mnt-$name.mount; journalctl -u mnt-$name.mount -o cat | grep ^mount.tsnbd:
done; systemctl is-active remote-fs.target`);
  // Not 'timeout': it ended by itself. systemd tells mount(8) nothing of nofail; the line without it fails its target.
  const end = [
    'exit-code',
    'mount.tsnbd: 127.0.0.1 port 4001: cannot begin the negotiation: no answer within the time limit',
  ];
  expect(failed).toEqual([...end, ...end, 'inactive']);
});

test('a line with x-systemd.automount is mounted when somebody looks, and unmounted when nobody does', async () => {
  const seen = await told(`is() { grep -c "^/dev/nbd.* /mnt/auto ext4" /proc/mounts; }
is; cat /mnt/auto/name; is
for try in $(seq 100); do [ $(is) = 0 ] && break; sleep 0.2; done; is
systemctl daemon-reload; sleep 1; is # our generator looks for what is below it
cat /mnt/auto/name /mnt/remote/name`);
  expect(seen).toEqual(['0', 'remote', '1', '0', '0', 'remote', 'remote']);
});

test('a mount that is interrupted has undone itself when it says so, its service too', async () => {
  const seen = await told(`units() { systemctl list-units --plain --no-legend 'tsnbd-mnt-dead-*'; }
for signal in TERM KILL; do
  /sbin/mount.tsnbd nbd://127.0.0.1:4001/ /mnt/dead & sleep 5; kill -s $signal $!; wait $!; echo $?
  [ $signal = TERM ] || for try in $(seq 100); do [ "$(units)" ] || break; sleep 0.2; done
  units; ls /run/tsnbd | grep launch
done`);
  // The shell may say so of its child.
  const ours = seen.filter((line) => line !== 'Killed');
  expect(ours).toEqual(['8', '137', 'mount.tsnbd: interrupted; nothing stays mounted or attached']);
});

/** Powers the guest off as its user does; gives what systemd wrote on the console. */
async function poweredOff(): Promise<string> {
  await guest.run('systemctl poweroff --no-block', { cwd: '/' }).catch(() => {}); // it ends while it answers
  const end = await Promise.race([guest.ended.then(() => 'off'), sleep(POWER_OFF_LIMIT_MS, 'late', { ref: false })]);
  const console = guest.consoleTail(Number.POSITIVE_INFINITY);
  expect(end, console).toBe('off');
  return console;
}

function checked(name: string): string {
  const image = `${join(dir, name)}.img?offset=${OFFSETS[0]}`;
  expect(execFileSync('e2fsck', ['-fn', image], { stdio: 'pipe' }).toString()).toContain('Pass 5');
  return execFileSync('debugfs', ['-R', 'cat /file', image], { stdio: 'pipe' }).toString();
}

test('systemd powers off in order, and nothing is lost; servers that are gone hold it up for a while only', async () => {
  await told(`cd /mnt; for name in 'local disk' remote; do echo written >"$name/file"; done
for name in killed stopped; do head -c 8M /dev/zero >$name/file; done
systemctl kill -s KILL killed; systemctl kill -s STOP stopped
# What systemd's last process says is shown, too.
echo 7 >/proc/sys/kernel/printk`);
  const console = await poweredOff();
  const at = (text: string) => {
    expect(console).toContain(text);
    return console.indexOf(text);
  };
  for (const name of ['remote', 'killed', 'stopped']) {
    expect(at(`Unmounted mnt-${name}.mount`)).toBeLessThan(at('Stopped target network.target'));
  }
  expect(at('Stopped target network.target')).toBeLessThan(at('Stopped server.service'));
  expect(at('Unmounted mnt-local')).toBeLessThan(at('Reached target shutdown.target'));
  expect(console).not.toContain('Ordering cycle');
  at('detached.\n'); // "All filesystems, ..."
  expect(at('Deactivated swap dev-nbd5.swap')).toBeLessThan(at('Stopped tsnbd@nbd5.service'));
  expect([checked('local'), checked('remote')]).toEqual(['written\n', 'written\n']);
});
