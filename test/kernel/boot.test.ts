import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';
import { bootGuest, type Guest } from '../../scripts/kernel-bench-guest.js';
import { freshDir } from './guest.js';
import { tsnbd } from './programs.js';

// systemd as process 1, in a guest of its own: a boot takes half a minute, so it is for the long run (vitest.config.ts).

const BOOT_LIMIT_MS = 180_000;
const POWER_OFF_LIMIT_MS = 120_000;

const dir = freshDir('boot');
afterAll(() => rmSync(dir, { recursive: true }));

/** A disk with one partition, whose file system has a file with its name. */
function makeDisk(name: string): string {
  const [image, files] = [join(dir, `${name}.img`), join(dir, `${name}.files`)];
  mkdirSync(files);
  writeFileSync(join(files, 'name'), name);
  const table = 'label: gpt\nsize=40M\n';
  execFileSync('truncate', ['-s', '48M', image]);
  execFileSync('sfdisk', ['-q', image], { input: table });
  execFileSync('mkfs.ext4', ['-q', '-d', files, '-E', 'offset=1048576', image, '40M']);
  return image;
}

const checked = (image: string) =>
  execFileSync('e2fsck', ['-fn', `${image}?offset=1048576`], { stdio: 'pipe' }).toString();

/** Of `server`, an export of which is there before the network is; of `dead`, a server that takes connections and is silent. */
const service = (name: string, port: number, image: string, more = '') => `cat >/etc/systemd/system/${name}.service <<E
[Unit]
DefaultDependencies=no
After=local-fs.target
Wants=network.target
Before=network.target
Conflicts=shutdown.target
[Service]
ExecStart=nbdkit -f -p ${port} file ${image}
ExecStartPost=/bin/sh -c "until grep -qi :${port.toString(16).padStart(4, '0')} /proc/net/tcp; do sleep 0.1; done"
${more}
E
ln -s ../${name}.service /etc/systemd/system/multi-user.target.wants/`;

const setup = (fstab: string, services: readonly string[]) => `
${tsnbd} install
mkdir -p '/mnt/local disk' /mnt/remote /mnt/dead /etc/systemd/system/multi-user.target.wants
ln -s /lib/systemd/system/remote-fs.target /etc/systemd/system/multi-user.target.wants/
cat >/etc/fstab <<E
${fstab}
E
${services.join('\n')}
`;

const REMOTE = 'nbd://127.0.0.1:4000/ /mnt/remote tsnbd _netdev,partition=1 0 0';
/** swap.target is there before the network. */
const SWAP = '/dev/nbd5 none swap noauto,_netdev 0 0';
const DEAD = 'nbd://127.0.0.1:4001/ /mnt/dead tsnbd _netdev,nofail,partition=1 0 0';

/** Powers the guest off as its user does; gives what systemd wrote on the console. */
async function poweredOff(guest: Guest): Promise<string> {
  await guest.run('systemctl poweroff --no-block', { cwd: '/' }).catch(() => {}); // it ends while it answers
  const end = await Promise.race([guest.ended.then(() => 'off'), sleep(POWER_OFF_LIMIT_MS, 'late', { ref: false })]);
  const console = guest.consoleTail();
  guest.destroy();
  expect(end, console).toBe('off');
  return console;
}

test('systemd boots with lines of fstab, a server that is dead among them, and powers off in order', async () => {
  const [local, remote] = [makeDisk('local'), makeDisk('remote')];
  const lines = [
    REMOTE,
    DEAD,
    SWAP,
    `/srv/images/local.img /mnt/local\\\\040disk tsnbd format=raw,partition=1 0 0`,
  ].join('\n');
  const guest = await bootGuest({
    systemd: `${setup(lines, [
      service('server', 4000, remote),
      service('dead', 4001, remote, 'ExecStartPost=/bin/kill -STOP \\$MAINPID'),
    ])}
# systemd takes all that is below /dev for a device.
ln -s ${dir} /srv/images
truncate -s 16M ${dir}/swap && mkswap -q ${dir}/swap
mkdir /etc/tsnbd && echo 'OPTIONS=-f raw ${dir}/swap' >/etc/tsnbd/nbd5.conf`,
    workDir: dir,
    nbd: 'max_part=16 nbds_max=8',
    limitMs: BOOT_LIMIT_MS,
  });
  const seen = await guest.run(
    `cat '/mnt/local disk/name'; echo; cat /mnt/remote/name; echo
for u in 'mnt-local\\x20disk.mount' mnt-remote.mount tsnbd@nbd5 dev-nbd5.swap; do systemctl is-active "$u"; done
systemctl show -p After mnt-remote.mount | grep -o network-online.target
systemctl list-units --plain --no-legend 'tsnbd-*' | sed 's/-[0-9]*.service.*//'
echo written >'/mnt/local disk/file'; echo written >/mnt/remote/file`,
    { cwd: '/', limitMs: 60_000 },
  );
  expect(seen.stdout.trim().split('\n').slice(0, 9)).toEqual([
    ...['local', 'remote', 'active', 'active', 'active', 'active', 'network-online.target'],
    ...['tsnbd-mnt-local\\x20disk', 'tsnbd-mnt-remote'],
  ]);
  const console = await poweredOff(guest);
  const at = (text: string) => {
    expect(console).toContain(text);
    return console.indexOf(text);
  };
  expect(at('Unmounted mnt-remote.mount')).toBeLessThan(at('Stopped target network.target'));
  expect(at('Stopped target network.target')).toBeLessThan(at('Stopped server.service'));
  expect(at('Unmounted mnt-local')).toBeLessThan(at('Reached target shutdown.target'));
  at('detached.\n'); // "All filesystems, ..."
  expect(at('Deactivated swap dev-nbd5.swap')).toBeLessThan(at('Stopped tsnbd@nbd5.service'));
  for (const image of [local, remote]) {
    expect(checked(image)).toContain('Pass 5');
    const said = execFileSync('debugfs', ['-R', 'cat /file', `${image}?offset=1048576`], { stdio: 'pipe' });
    expect(said.toString()).toBe('written\n');
  }
});

test('systemd powers off within its limit when the server died under a mount', async () => {
  const guest = await bootGuest({
    systemd: setup(REMOTE, [service('server', 4000, makeDisk('dying'))]),
    workDir: dir,
    limitMs: BOOT_LIMIT_MS,
  });
  await guest.run('dd if=/dev/zero of=/mnt/remote/file bs=1M count=8; systemctl kill -s KILL server', { cwd: '/' });
  const console = await poweredOff(guest);
  expect(console).toContain('Unmounted mnt-remote.mount');
  expect(console).toContain('Powering off');
});
