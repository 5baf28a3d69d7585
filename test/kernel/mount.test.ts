import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { long, longTest } from '../long.js';
import { assertQuietKernel, type Background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, listensOn, startServer, tsnbd } from './programs.js';

// What a user does with lines of fstab, by the real mount(8) and umount(8). Node starts in a quarter of a second here: each
// command of the guest does several things, and tells of each by one line.

let dir = '';
let server: Background;

/** `t COMMAND...` prints its status and, behind it, what it wrote; `ours` the devices that are up, and where they are mounted. */
const PRELUDE = `
t() { said=$("$@" 2>&1); echo "$? $said"; }
ours() { for n in 0 1 2; do
  [ -e /sys/block/nbd$n/pid ] && echo nbd$n $(sed -n "s,^/dev/nbd$n[^ ]* \\([^ ]*\\) .*,\\1,p" /proc/mounts); done | tr "\\n" ";"; echo; }
lines() { printf "%s\\n" "$@" >/etc/fstab; }
m=/sbin/mount.tsnbd
`;

/** The output of a script, by lines; $d is the folder with the disks and the mount points 1 to 3. */
async function told(script: string, limitMs = 120_000): Promise<string[]> {
  return (await ok(`${PRELUDE}d=${dir}\ncd $d\n${script}`, { limitMs })).replaceAll(dir, 'D').split('\n');
}

beforeAll(async () => {
  dir = await memoryDir('mount');
  // Two partitions with a file system each, whose file says which it is; made without a device.
  await ok(
    `cd ${dir} && mkdir 1 2 3 files && truncate -s 100M disk.raw &&
printf 'label: gpt\\nsize=40M,name=first,uuid=11111111-2222-3333-4444-555555555555\\ntype=linux\\n' | sfdisk -q --no-tell-kernel disk.raw
for n in 1 2; do echo $n >files/name; mkfs.ext4 -q -L fs$n -d files -E offset=$((n == 1 ? 1048576 : 42991616)) disk.raw 40M; done
truncate -s 40M whole.raw && echo whole >files/name && mkfs.ext4 -q -d files whole.raw
qemu-img convert -O qcow2 disk.raw disk.qcow2 && cp disk.raw served.raw
${tsnbd} install >/dev/null`,
    { limitMs: 120_000 },
  );
  server = await startServer(`nbdkit -f -p 4000 file ${dir}/served.raw`, listensOn(4000));
});

afterEach(async () => {
  await run(`umount -a -O helper=tsnbd; rm -f /etc/fstab*`);
  await expectNothingLeft();
  await assertQuietKernel();
});

afterAll(async () => {
  await server.stop();
  await ok(`${tsnbd} install --uninstall && rm -rf ${dir} && ! ls /sbin/mount.tsnbd /etc/modprobe.d/tsnbd.conf`);
});

describe('lines of fstab', () => {
  test('are mounted and detached, whatever the source; again is no failure', async () => {
    const socket = await startServer(`nbdkit -f -U ${dir}/sock file ${dir}/whole.raw`, `test -S ${dir}/sock`);
    const script = `lines "nbd://127.0.0.1:4000/ $d/1 tsnbd _netdev,nofail,partition=1 0 0" \\
      "$d/disk.qcow2 $d/2 tsnbd format=qcow2,partition=2,ro 0 0" \\
      "nbd+unix:///disk $d/3 tsnbd socket=$d/sock,fstype=ext4,noatime,_netdev 0 0"
t mount -a
cat 1/name 2/name 3/name
findmnt -no SOURCE,FSTYPE,OPTIONS $d/3; cat /sys/block/nbd1/ro; grep -c helper=tsnbd,_netdev /run/mount/utab
t mount -a; ours
t umount -a -O helper=tsnbd; ours; ls -A /run/tsnbd`;
    expect(await told(script)).toEqual([
      '0 ',
      ...['1', '2', 'whole'],
      expect.stringMatching(/^\/dev\/nbd2 +ext4 +rw,noatime/),
      ...['1', '2'],
      '0 ',
      'nbd0 D/1;nbd1 D/2;nbd2 D/3;',
      '0 ',
      '',
    ]);
    await socket.stop();
  });

  test('that use partitions of one source share a device, and the last unmount detaches it', async () => {
    const script = `lines "nbd://127.0.0.1:4000/ $d/1 tsnbd _netdev,partition=label:first 0 0" \\
      "nbd://127.0.0.1:4000 $d/2 tsnbd _netdev,partition=2,fsck=auto 0 0"
t mount $d/1; t mount $d/2; ours
t mount -o remount,ro $d/1; t touch 1/x; t mount -o remount,rw $d/1; t touch 1/x
exec 5<1/name; t umount $d/1; ours; exec 5<&-
t umount $d/1; ours; t umount $d/2; ours`;
    expect(await told(script)).toEqual([
      ...['0 ', '0 ', 'nbd0 D/1 D/2;'],
      ...['0 ', "1 touch: cannot touch '1/x': Read-only file system", '0 ', '0 '],
      ...['32 umount.tsnbd: cannot unmount D/1: target is busy', 'nbd0 D/1 D/2;'],
      ...['0 ', 'nbd0 D/2;', '0 ', ''],
    ]);
  });

  test('that are wrong fail with one line, and leave nothing attached', async () => {
    const spec = 'nbd://127.0.0.1:4000/';
    const script = `t $m nbd://no.such.host.invalid/ $d/1
t $m nbd://127.0.0.1:4001/ $d/1 -o partition=1
t $m nbd://127.0.0.1:4001/ $d/1 -o nofail,partition=1
t $m $d/none.raw $d/1 -o nofail
t $m ${spec} $d/1 -o nofail,partition=3
t $m ${spec} $d/1
t $m ${spec} $d/1 -o partition=uuid:11111111-2222-3333-4444-555555555555,nonsense=1
t $m ${spec} $d/1 -t tsnbd.xfs -o partition=1
t $m ${spec} $d/nowhere -o nofail,partition=1
t $m $d/disk.raw $d/1 -o partition=first
t $m $d/disk.raw $d/1 -f -o partition=1
t setpriv --reuid=65534 --clear-groups $m $d/disk.raw $d/1 -o user,partition=1
t $m $d/disk.raw /run/mount/tmptgt -o partition=1
ours`;
    expect(await told(script)).toEqual([
      expect.stringMatching(
        /^32 mount.tsnbd: cannot connect to no.such.host.invalid port 10809: (its name|no such host)/,
      ),
      '32 mount.tsnbd: cannot connect to 127.0.0.1 port 4001: connection refused (ECONNREFUSED)',
      '0 mount.tsnbd: cannot connect to 127.0.0.1 port 4001: connection refused (ECONNREFUSED); passed over (nofail)',
      expect.stringMatching(/^0 mount.tsnbd: D\/none.raw .*does not exist.*; passed over \(nofail\)$/),
      '32 mount.tsnbd: there is no partition 3; it has the partitions 1, 2',
      '32 mount.tsnbd: no file system is found on /dev/nbd0; it has the partitions 1, 2: name one, partition=1',
      expect.stringMatching(/^32 mount.tsnbd: cannot mount \/dev\/nbd0p1 on D\/1: wrong fs type, bad option/),
      expect.stringMatching(
        /^32 mount.tsnbd: cannot mount \/dev\/nbd0p1 on D\/1: (wrong|unknown) (fs|filesystem) type/,
      ),
      '32 mount.tsnbd: the mount point D/nowhere does not exist',
      "1 mount.tsnbd: option partition: 'first' is not a partition: N (1 to 255), label:NAME or uuid:UUID",
      '0 ',
      expect.stringMatching(/^1 mount.tsnbd: only root can mount a network block device, whatever .*users; try sudo$/),
      expect.stringMatching(/^1 mount.tsnbd: option X-mount.subdir: /),
      '',
    ]);
  });
});

longTest('tsnbd fstab writes a line for what is there, and finds what is wrong with others', async () => {
  const script = `lines; a="${tsnbd} fstab add"
t $a nbd://127.0.0.1:4000/ $d/1 -o nofail
t $a nbd://127.0.0.1:4000/ $d/1 -o nofail,partition=2
t $a $d/whole.raw $d/1
lines "$(cat /etc/fstab)" "nbd://127.0.0.1:4000/ $d/4 tsnbd partition=3 0 1" "$d/none.raw $d/2 tsnbd fsck=x 0 0"
t ${tsnbd} fstab check; ours
lines; : >table; third="$a nbd://127.0.0.1:4000/ $d/3 -o partition=1"
t $third --dry-run; t $third --fstab $d/table; wc -l </etc/fstab; wc -l <table`;
  const third = '0 nbd://127.0.0.1:4000/\tD/3\ttsnbd\t_netdev,partition=1\t0 0';
  const line = 'nbd://127.0.0.1:4000/\tD/1\ttsnbd\t_netdev,nofail,partition=2\t0 0';
  const wrong = (number: number, folder: string, what: string) => `/etc/fstab, line ${number}, ${folder}: ${what}`;
  expect(await told(script)).toEqual([
    '2 tsnbd: option partition: name one of the partitions 1 (ext4, fs1), 2 (ext4, fs2), as in -o partition=1',
    ...[`0 ${line}`, 'added to /etc/fstab, which is kept as /etc/fstab.before-tsnbd; mount it by: mount D/1'],
    '1 tsnbd: /etc/fstab has a line for D/1 already, line 2',
    expect.stringMatching(/^1 \/etc\/fstab, line 3, D\/4: _netdev is missing: /),
    wrong(3, 'D/4', 'the last field is not 0: fsck(8) does not know the type; use fsck=auto'),
    wrong(3, 'D/4', 'the mount point D/4 does not exist'),
    wrong(3, 'D/4', 'there is no such partition; it has 1, 2'),
    wrong(4, 'D/2', "option fsck: 'x' is not a way to check (yes, auto, no)"),
    '',
    third,
    ...[third, 'added to D/table, which is kept as D/table.before-tsnbd; mount it by: mount D/3'],
    ...['1', '1'],
  ]);
});

describe('what went past us', () => {
  test('a lazy unmount: the device stays until the last program lets go, and nothing is lost', async () => {
    const script = `cp disk.raw lazy.raw
t ${tsnbd} mount $d/lazy.raw $d/1 -o format=raw,partition=1
exec 5>1/late; t umount -l $d/1; ours
dd if=/dev/urandom bs=1M count=8 status=none | tee kept >&5; exec 5>&-
for try in $(seq 100); do [ -e /run/tsnbd/nbd0.json ] || break; sleep 0.1; done
t ${tsnbd} mount $d/lazy.raw $d/1 -o format=raw,partition=1,ro; cmp kept 1/late && echo same; t ${tsnbd} umount $d/1`;
    expect(await told(script)).toEqual([
      '0 ',
      '0 umount.tsnbd: D/1 is still in use: /dev/nbd0 is detached when that is over',
      'nbd0;',
      ...['0 ', 'same', '0 '],
    ]);
  });

  longTest(
    'umount -i: the device is detached by the next call, and an entry that is left is a plain unmount',
    async () => {
      const script = `lines "$d/disk.raw $d/1 tsnbd format=raw,partition=1 0 0" "$d/disk.qcow2 $d/2 tsnbd partition=2 0 0"
t mount $d/1; t umount -i $d/1; ours
t mount $d/2; ours
t umount $d/2
${tsnbd} -c nbd0 -f raw $d/disk.raw; mount -i -t ext4 -o helper=tsnbd /dev/nbd0p1 $d/1; t umount $d/1; ours
${tsnbd} mount $d/disk.raw $d/1 -o format=raw,partition=1; ours; t umount $d/1; ours; ${tsnbd} -d nbd0`;
      expect(await told(script)).toEqual([
        ...['0 ', '0 ', 'nbd0;'],
        ...['0 ', 'nbd0 D/2;'],
        '0 ',
        ...['0 ', 'nbd0;'],
        // What was attached by hand is used, and stays.
        ...['nbd0 D/1;', '0 ', 'nbd0;', '/dev/nbd0 disconnected'],
      ]);
    },
  );

  test('the serving process is killed under a mount: it is unmounted, detached, and mounted anew', async () => {
    const script = `t ${tsnbd} mount $d/disk.raw $d/1 -o format=raw,partition=1
pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/' /run/tsnbd/nbd0.json); head -c 6 /proc/$pid/cmdline; echo; kill -9 $pid
t ${tsnbd} mount $d/disk.raw $d/2 -o format=raw,partition=2
umount $d/1; echo $?; ours
t ${tsnbd} mount $d/disk.raw $d/1 -o format=raw,partition=1; cat 1/name; t umount $d/1`;
    expect(await told(script)).toEqual([
      '0 ',
      // Spared by systemd's last killing.
      '@tsnbd',
      '32 tsnbd: /dev/nbd0 is still attached, though its process is gone, and in use: /dev/nbd0p1 is mounted on D/1',
      ...['0', ''],
      ...['0 ', '1', '0 '],
    ]);
  });
});

longTest(
  'with /run read-only nothing is touched; with /run/mount alone it is mounted, and can be unmounted by us',
  async () => {
    const script = `unshare -m sh -c '${PRELUDE}
mount --bind /run /run; mount -o remount,ro,bind /run
t $m ${dir}/disk.raw ${dir}/1 -o format=raw,partition=1; cat /sys/block/nbd0/size
umount /run; mount --bind /run/mount /run/mount; mount -o remount,ro,bind /run/mount
t $m ${dir}/disk.raw ${dir}/1 -o format=raw,partition=1; cat 1/name; t ${tsnbd} umount ${dir}/1; ours'`;
    expect(await told(script)).toEqual([
      '2 mount.tsnbd: cannot write /run/tsnbd.lock (EROFS), so nothing was touched',
      '0',
      '0 mount.tsnbd: D/1 is mounted, but that could not be written down: unmount it by: tsnbd umount D/1',
      ...['1', '0 ', ''],
    ]);
  },
);

longTest('fsck repairs what it may before a mount; what needs a decision is not mounted', async () => {
  const script = `e() { debugfs -w -R "$2" $1 2>&1 | grep -v ^debugfs; }
cp whole.raw bad.raw; e bad.raw "set_super_value state 0"; e bad.raw "freeb 1000 50"
cp whole.raw worse.raw; for what in "set_super_value state 0" "mkdir a" "mkdir a/b" "clri a"; do e worse.raw "$what"; done
b="$m $d/bad.raw $d/1 -o format=raw"; w="$m $d/worse.raw $d/1 -o format=raw"
t $b,ro,fsck=yes; t $b,ro,fsck=auto; umount 1
t $b,fsck=auto; cat 1/name; umount 1; e2fsck -fn bad.raw >/dev/null 2>&1; echo $?
t $b,fsck=yes; umount 1
t $w,fsck=auto; t $w,fsck=yes,nofail; ours; ls -A /run/tsnbd
t $b,fsck=yes,fstype=hfs; t $b,fsck=auto,fstype=hfs; ours`;
  const undecided = (status: number) =>
    `${status} mount.tsnbd: fsck.ext4 does not pass /dev/nbd0: it has errors that need a decision; attach it without mounting it, and check it by hand`;
  expect(await told(script)).toEqual([
    ...[undecided(32), '0 '],
    ...['0 mount.tsnbd: fsck.ext4 found errors on /dev/nbd0, and repaired them', 'whole', '0'],
    '0 ',
    ...[undecided(32), undecided(32), ''],
    '32 mount.tsnbd: there is no fsck.hfs to check /dev/nbd0 with',
    expect.stringMatching(/^32 mount.tsnbd: cannot mount \/dev\/nbd0 on D\/1: /),
    '',
  ]);
});

longTest('a mount that is interrupted, wherever it is, leaves nothing mounted or attached', async () => {
  const slow = await startServer(
    `nbdkit -f -p 4004 --filter=delay file ${dir}/whole.raw rdelay=100ms`,
    listensOn(4004),
  );
  const silent = await startServer(`nbdkit -f -p 4005 file ${dir}/whole.raw`, listensOn(4005));
  await run(`kill -STOP ${silent.pid}`);
  const script = `interrupted() { # SIGNAL SECONDS PORT
  $m nbd://127.0.0.1:$3/ $d/1 -o fsck=yes 2>said & p=$!; sleep $2; kill -s $1 $p; wait $p; status=$?
  # What had begun when its caller was killed goes on, and is a mount like others.
  while pgrep -x mount >/dev/null; do sleep 0.1; done
  grep -q " $d/1 " /proc/mounts && umount 1
}
for n in 1 2 3 4 5 6; do interrupted TERM $n 4004; echo $status $(cat said) $(ours)$(ls -A /run/tsnbd); done
interrupted INT 2 4005; echo $status $(cat said) $(ours)$(ls -A /run/tsnbd)
for n in 1 3 5; do interrupted KILL $n 4004; done; t $m $d/whole.raw $d/1 -o format=raw; umount 1; ours
# Between mounting and writing that down.
printf "%s\\n" "#!/bin/sh" '/bin/mount "$@"; kill -TERM $PPID; sleep 5' >/usr/local/sbin/mount; chmod +x /usr/local/sbin/mount
t $m $d/whole.raw $d/1 -o format=raw; grep -c " $d/1 " /proc/mounts; ours; rm /usr/local/sbin/mount`;
  const seen = await told(script, 600_000);
  const interrupted = '8 mount.tsnbd: interrupted; nothing stays mounted or attached';
  // Before it listens to signals the shell has the status; and it may be faster.
  for (const line of seen.slice(0, 6)) expect([interrupted, '143', '0']).toContain(line);
  expect(seen.slice(0, 6)).toContain(interrupted);
  expect(seen.slice(6)).toEqual([interrupted, '0 ', '', interrupted, '0', '']);
  await slow.stop();
  await silent.stop('KILL');
});

longTest('in another mount namespace, and without a process that stays', async () => {
  const script = `unshare -m sleep 60 & sleep 0.5; ns=/proc/$!/ns/mnt
t mount -N $ns -t tsnbd -o partition=1,nopersist nbd://127.0.0.1:4000/ $d/1; ls 1; nsenter --mount=$ns cat $d/1/name
ours; pgrep -f 'tsnbd|attach-process'; t umount -N $ns $d/1; ours; kill $!`;
  expect(await told(script)).toEqual(['0 ', '1', 'nbd0;', '0 ', '']);
});

longTest('what is asked of mount(8) and umount(8) is asked of them within', async () => {
  const script = `for each in mount umount; do
  printf '%s\\n' '#!/bin/sh' "echo $each \\"\\$@\\" >>$d/asked" "exec /bin/$each \\"\\$@\\"" >/usr/local/sbin/$each
  chmod +x /usr/local/sbin/$each
done
t $m $d/whole.raw $d/1 -s -t tsnbd.ext4 -o format=raw,noatime,nosuid
t /sbin/umount.tsnbd $d/1 -l -f -r
$m $d/whole.raw $d/1 -v -o format=raw 2>&1 | tail -n 1; /sbin/umount.tsnbd $d/1 -v 2>&1 | tail -n 1
rm /usr/local/sbin/mount /usr/local/sbin/umount; cat asked`;
  expect(await told(script)).toEqual([
    ...['0 ', '0 '],
    ...['mount.tsnbd: mount', 'umount.tsnbd: detach'],
    'mount -i -t ext4 -o noatime,nosuid,helper=tsnbd -s -- /dev/nbd0 D/1',
    'umount -i -l -f -r -- D/1',
    ...['mount -i -t ext4 -o helper=tsnbd -- /dev/nbd0 D/1', 'umount -i -- D/1'],
  ]);
});

longTest(
  'in another network namespace, where Linux 6.1 can only be asked by ioctl: the first device that is free',
  async () => {
    const script = `n="unshare -n ${tsnbd}"; ${tsnbd} -c nbd0 -f raw $d/whole.raw
t $n mount $d/disk.raw $d/1 -o format=raw,partition=1; t $n mount $d/disk.raw $d/2 -o format=raw,partition=2; ours
${tsnbd} status nbd1 | grep kernelApi; cat 1/name 2/name
t umount $d/1; ours; t $n umount $d/2; ours; ${tsnbd} -d nbd0`;
    expect(await told(script)).toEqual([
      ...['0 ', '0 ', 'nbd0;nbd1 D/1 D/2;'],
      ...[expect.stringMatching(/^kernelApi: (ioctl|netlink)$/), '1', '2'],
      ...['0 ', 'nbd0;nbd1 D/2;', '0 ', 'nbd0;', '/dev/nbd0 disconnected'],
    ]);
  },
);

if (long) {
  test('50 rounds of mount -a and umount -a', async () => {
    const script = `lines "nbd://127.0.0.1:4000/ $d/1 tsnbd _netdev,partition=1 0 0" "$d/disk.qcow2 $d/2 tsnbd partition=2 0 0" \\
    "nbd://127.0.0.1:4000/ $d/3 tsnbd _netdev,partition=2 0 0"
for round in $(seq 50); do mount -a && echo $round >1/round && umount -a -O helper=tsnbd || { echo "round $round"; break; }; done
ours; mount -a && cat 1/round; umount -a -O helper=tsnbd`;
    expect(await told(script, 1_200_000)).toEqual(['', '50']);
    await until('! ls -A /run/tsnbd | grep .');
  });
}
