import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { bootFiles } from '#tsnbd/mount/boot-files.js';
import { install, uninstall } from '#tsnbd/mount/install.js';

const root = mkdtempSync(join(tmpdir(), 'tsnbd-install-'));
afterEach(() => rmSync(root, { recursive: true, force: true }));

const files = bootFiles({
  node: process.execPath,
  folder: join(root, "it's here"),
  manualPages: new Map([['tsnbd.8', 'a page\n']]),
  completions: new Map([['bash', 'a script\n']]),
});
const tree = () => readdirSync(root, { recursive: true, encoding: 'utf8' }).sort();
const kinds = (steps: readonly { kind: string }[]) => [...new Set(steps.map(({ kind }) => kind))];

describe('tsnbd install', () => {
  test('puts files in place, again changes nothing, and removes exactly that again', () => {
    mkdirSync(join(root, 'etc/modprobe.d'), { recursive: true });
    const before = tree();
    expect(kinds(install(root, files, true))).toEqual(['write']);
    expect(tree()).toEqual(before);
    const steps = install(root, files, false);
    expect(steps.map(({ path }) => path)).toContain(join(root, 'sbin/mount.tsnbd'));
    expect(readFileSync(join(root, 'usr/local/share/bash-completion/completions/tsnbd-client'), 'utf8')).toBe(
      'a script\n',
    );
    expect(kinds(steps)).toEqual(['write']);
    const after = tree();
    expect(kinds(install(root, files, false))).toEqual(['same']);
    expect(tree()).toEqual(after);
    chmodSync(join(root, 'sbin/mount.tsnbd'), 0o644);
    expect(install(root, files, false)[0]?.kind).toBe('replace');
    expect(kinds(uninstall(root, true))).toEqual(['remove']);
    expect(tree()).toEqual(after);
    expect(kinds(uninstall(root, false))).toEqual(['remove']);
    expect(tree()).toEqual(before);
    expect(uninstall(root, false)).toEqual([]);
  });

  test('takes away what an earlier version had besides, and leaves what somebody changed', () => {
    const old = { path: '/etc/old/of-ours', text: 'x\n', mode: 0o644 };
    install(root, [...files, old], false);
    expect(install(root, files, false)).toContainEqual({ kind: 'remove', path: join(root, old.path) });
    expect(existsSync(join(root, old.path))).toBe(false);
    const changed = join(root, 'etc/modprobe.d/tsnbd.conf');
    writeFileSync(changed, 'options nbd max_part=99\n');
    expect(uninstall(root, false)).toContainEqual({ kind: 'changed', path: changed });
    expect(tree().filter((path) => path.includes('.'))).toEqual(['etc/modprobe.d/tsnbd.conf', 'etc/modprobe.d'].sort());
  });

  test('does nothing where somebody else has such a file, unless it is the very same', () => {
    const same = join(root, 'usr/local/share/man/man8/tsnbd.8');
    mkdirSync(dirname(same), { recursive: true });
    writeFileSync(same, 'a page\n');
    install(root, files, false);
    uninstall(root, false);
    expect(readFileSync(same, 'utf8')).toBe('a page\n');
    mkdirSync(join(root, 'sbin'));
    writeFileSync(join(root, 'sbin/umount.tsnbd'), 'of another program');
    const before = tree();
    expect(() => install(root, files, false)).toThrow(
      `${join(root, 'sbin/umount.tsnbd')} is there, and was not put there`,
    );
    expect(tree()).toEqual(before);
  });

  test('the programs are started with what they get, or say that they are gone with status 2', () => {
    install(root, files, false);
    const program = join(root, 'sbin/mount.tsnbd');
    const run = () => spawnSync(program, ['a b', "c'd"], { encoding: 'utf8', env: {} });
    expect(run()).toMatchObject({ status: 2 });
    expect(run().stderr).toBe(`${program}: ${root}/it's here/mount-tsnbd.js is gone; run: tsnbd install\n`);
    mkdirSync(join(root, "it's here"));
    writeFileSync(join(root, "it's here/mount-tsnbd.js"), 'console.log(JSON.stringify(process.argv.slice(2)))');
    expect(run().stdout).toBe('["a b","c\'d"]\n');
  });
});

const FSTAB = String.raw`# a comment
nbd://192.168.56.1:4000/   /mnt/test1  tsnbd  _netdev,nofail,partition=1                     0 0
/srv/images/test01.img     /mnt/test2  tsnbd  format=qcow2,partition=2,ro                    0 0
nbd+unix:///disk           /mnt/t3     tsnbd  socket=/run/nbd.sock,fstype=xfs,noatime,_netdev  0 0
/srv/my\040"disk"%.img     /mnt/a\040b tsnbd.ext4 fsck=auto,x-systemd.automount,_netdev,noauto 0 0
/dev/vg/lv                 /mnt/lv     tsnbd  x-systemd.mount-timeout=7 0 0
tmpfs                      /mnt/tmp    tmpfs  defaults 0 0
/dev/nbd3p1                none        swap   noauto,pri=1,_netdev 0 0
/dev/nbd4                  none        swap   defaults 0 0`;

test('what the generator adds to the units that systemd makes of fstab is whole, and verified by systemd', () => {
  const generator = files.find(({ path }) => path.endsWith('tsnbd-generator'));
  const [script, fstab, units] = [join(root, 'generator'), join(root, 'fstab'), join(root, 'units')];
  mkdirSync(units, { recursive: true });
  writeFileSync(script, generator?.text ?? '');
  // Links to what is not there yet.
  symlinkSync('/mnt/data', join(root, 'images'));
  symlinkSync('/mnt/real', join(root, 'mounts'));
  writeFileSync(fstab, `${FSTAB}\n${root}/images/a.img ${root}/mounts/linked tsnbd defaults 0 0\n`);
  const options = { env: { PATH: process.env.PATH, SYSTEMD_FSTAB: fstab }, encoding: 'utf8' } as const;
  execFileSync('/usr/lib/systemd/system-generators/systemd-fstab-generator', [units, units, units], options);
  expect(spawnSync('/bin/sh', ['-eu', script, units], options)).toMatchObject({ status: 0, stdout: '', stderr: '' });
  const added = (unit: string) =>
    readFileSync(join(units, `${unit}.mount.d/tsnbd.conf`), 'utf8')
      .split('\n')
      .slice(1, -1)
      .join(' ');
  const module = '[Unit] Wants=modprobe@nbd.service After=modprobe@nbd.service';
  const limit = '[Mount] TimeoutSec=90s';
  expect(added('mnt-test1')).toBe(`${module} ${limit}`);
  expect(added('mnt-test2')).toBe(`${module} RequiresMountsFor="/srv/images/test01.img" ${limit}`);
  expect(added('mnt-t3')).toBe(`${module} ${limit}`);
  expect(added('mnt-a\\x20b')).toBe(`${module} RequiresMountsFor="/srv/my \\"disk\\"%%.img" [Mount] TimeoutSec=1h`);
  expect(added('mnt-lv')).toBe(`${module} Requires=dev-vg-lv.device After=dev-vg-lv.device`);
  expect(added('mnt-real-linked')).toBe(
    `${module} RequiresMountsFor="${root}/images/a.img" RequiresMountsFor="/mnt/data/a.img" ${limit}`,
  );
  const made = readdirSync(units);
  expect(made.filter((name) => name.endsWith('.mount.d') && !made.includes(name.slice(0, -2)))).toEqual([]);
  expect(readFileSync(join(units, 'dev-nbd3p1.swap.d/tsnbd.conf'), 'utf8').split('\n').slice(1, -1).join(' ')).toBe(
    '[Unit] Requires=tsnbd@nbd3.service After=tsnbd@nbd3.service DefaultDependencies=no ' +
      'Before=remote-fs.target umount.target Conflicts=umount.target',
  );
  expect(readlinkSync(join(units, 'remote-fs.target.wants/dev-nbd3p1.swap'))).toBe('../dev-nbd3p1.swap');
  expect(existsSync(join(units, 'dev-nbd4.swap.d'))).toBe(false);
  const service = files.find(({ path }) => path.endsWith('tsnbd@.service'));
  writeFileSync(join(units, 'tsnbd@nbd3.service'), service?.text ?? '');
  // What starts the network waits for local disks, as NetworkManager does. A cycle is told where all of it is started.
  const network = '[Unit]\nWants=network.target\nBefore=network.target\n[Service]\nExecStart=/bin/true\n';
  writeFileSync(join(units, 'network.service'), network);
  const all = 'Requires=sysinit.target local-fs.target remote-fs.target tsnbd@nbd3.service network.service';
  writeFileSync(join(units, 'all.target'), `[Unit]\n${all}\n`);
  const names = readdirSync(units).filter((name) => /mount$|service$|target$/.test(name));
  const verified = spawnSync('systemd-analyze', ['verify', '--man=no', ...names.map((name) => join(units, name))], {
    encoding: 'utf8',
  });
  expect(verified).toMatchObject({ status: 0, stderr: '' });
});
