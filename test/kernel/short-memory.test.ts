import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Guest } from '../../scripts/kernel-bench-guest.js';
import { long } from '../long.js';
import { assertQuietKernel, freshDir, run, withOwnGuest } from './guest.js';
import { expectNothingLeft, newImage, tsnbd } from './programs.js';

// A device that the kernel writes to when it has no memory left, and one that it swaps to: neither may wait for the other, or
// for memory. The images lie on the host: the guest's own files are in its memory.

/**
 * With --long, on Debian 12's kernel, memory is short: a guest of its own takes minutes for that. The newer kernel loses what system
 * calls write to memory that is swapped out (native-notes/short-memory).
 */
const mayBeShort = long && process.env.TSNBD_BENCH_KERNEL === 'debian12';
const MEMORY = '512M';
const WRITTEN_MIB = long ? 4096 : 16;
/**
 * What others want to have in memory, beside the rest. User-Mode Linux has a mapping of the host for each page of a process,
 * and the host ends at 65,530 of them (vm.max_map_count): a process that asks for 256 MiB faults for ever.
 */
const EATERS = [1, 2, 3, 4];
const EATEN_MIB_EACH = 150;
const PIECE_MIB = long ? 32 : 8;

type AnyGuest = Pick<Guest, 'workDir' | 'run'>;

/** Loaded before the server: it collects garbage all the time, in the thread that serves too, between two requests. */
const COLLECTS_GARBAGE = `
  require('node:v8').setFlagsFromString('--expose-gc');
  const collect = require('node:vm').runInNewContext('gc');
  const fs = require('node:fs');
  const { readSync } = fs;
  let reads = 0;
  fs.readSync = (...args) => {
    reads += 1;
    if (reads % 256 === 0) collect();
    return readSync(...args);
  };
  require('node:module').syncBuiltinESMExports();
  setInterval(collect, 200).unref();
`;

/** Writes to all of its memory again and again; says so, by a file of that name, after the first time. */
const EATER = `perl -e 'my @all;
  for (my $byte = 0; ; $byte++) {
    for my $n (1 .. $ARGV[0]) {
      $all[$n] = "x" x 1048576 unless $byte;
      for (my $at = $byte % 4096; $at < 1048576; $at += 4096) { substr($all[$n], $at, 1) = "y" }
    }
    open(my $said, ">", $ARGV[1]) unless $byte;
    select(undef, undef, undef, 0.5);
  }'`;

async function ok(guest: AnyGuest, command: string, limitMs = 60_000): Promise<string> {
  const { status, stdout, stderr } = await guest.run(command, { limitMs });
  if (status !== 0) throw new Error(`status ${status} of: ${command}\n--- stdout\n${stdout}\n--- stderr\n${stderr}`);
  return stdout.trimEnd();
}

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of the kernel's <linux/sched.h>: what PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER = 0x180000;

const pidOf = (device: string) => `sed 's/.*"pid":\\([0-9]*\\).*/\\1/' /run/tsnbd/${device}.json`;

/** The process behind a device: what it tells of itself in /proc. */
async function processBehind(guest: AnyGuest, device: string) {
  const pid = await ok(guest, pidOf(device));
  const flags = (await ok(guest, `cat /proc/${pid}/task/*/stat | sed 's/.*) //' | cut -d ' ' -f 7`)).split('\n');
  const lines = await ok(guest, `cat /proc/${pid}/oom_score_adj; grep -E '^Vm(Lck|RSS|HWM)' /proc/${pid}/status`);
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s*([0-9]+) kB`, 'm').exec(lines)?.[1]);
  return {
    threads: flags.length,
    flushers: flags.filter((each) => (Number(each) & IO_FLUSHER) === IO_FLUSHER).length,
    oomScore: lines.split('\n')[0],
    lockedKiB: kib('VmLck'),
    mostKiB: kib('VmHWM'),
  };
}

test.each(mayBeShort ? ['short', 'plenty'] : ['plenty'])(
  'a mounted image, and swap on another, while memory is %s',
  async (memory) => {
    if (memory === 'short') return withOwnGuest({ memory: MEMORY }, (guest) => useBoth(guest, true));
    await useBoth({ workDir: freshDir('memory'), run }, false);
    await assertQuietKernel();
  },
);

async function useBoth(guest: AnyGuest, isShort: boolean): Promise<void> {
  const dir = guest.workDir;
  const at = (command: string, limitMs?: number) => ok(guest, `cd ${dir} && ${command}`, limitMs);
  writeFileSync(join(dir, 'collects-garbage.cjs'), COLLECTS_GARBAGE);
  const mnt = await at(`truncate -s ${2 * WRITTEN_MIB}M disk && truncate -s 1G swap && mktemp -d /tmp/mount-XXXXXX`);
  const environment = `NODE_OPTIONS=--require=${dir}/collects-garbage.cjs`;
  await at(`${environment} ${tsnbd} -c nbd0 -f raw ${dir}/disk`);
  await at(`${environment} ${tsnbd} --swap -c nbd1 -f raw ${dir}/swap`);
  const [plain, locked] = [await processBehind(guest, 'nbd0'), await processBehind(guest, 'nbd1')];
  for (const seen of [plain, locked]) {
    expect(seen).toMatchObject({ oomScore: '-1000', flushers: seen.threads });
    expect(seen.threads).toBeGreaterThan(6);
  }
  expect(locked.lockedKiB).toBeGreaterThan(plain.lockedKiB + 10_000);
  // The next process of a device inherits the filter for its calls of madvise(2), and makes no other.
  await at(`${tsnbd} restart nbd1 && test "$(sed -n 's/^Seccomp_filters:\t//p' /proc/$(${pidOf('nbd1')})/status)" = 1`);

  await at('mkswap /dev/nbd1 >/dev/null && swapon /dev/nbd1');
  await at(`mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 ${mnt} && head -c ${PIECE_MIB}M /dev/urandom >piece`);
  const eaters = (isShort ? EATERS : []).map((n) =>
    guest.run(`cd ${dir} && exec ${EATER} ${EATEN_MIB_EACH} eaten-${n}`, { limitMs: 6_000_000 }),
  );
  for (const eater of eaters) eater.catch(() => {}); // of a dead guest the others tell
  for (const n of isShort ? EATERS : []) await at(`until test -e eaten-${n}; do sleep 0.1; done`, 1_200_000);
  const pieces = `$(seq ${WRITTEN_MIB / PIECE_MIB})`;
  await at(`for n in ${pieces}; do cp piece ${mnt}/$n || exit 1; done; sync ${mnt}`, 3_600_000);
  if (isShort) {
    expect(Number(await at("awk '/nbd1/ { print $4 }' /proc/swaps"))).toBeGreaterThan(10_000);
    await at('pkill -KILL perl');
    for (const eater of eaters) expect((await eater).status).toBe(137);
  }
  await at(`umount ${mnt} && mount /dev/nbd0 ${mnt}`);
  await at(`for n in ${pieces}; do cmp piece ${mnt}/$n || exit 1; done`, 3_600_000);

  await at(`umount ${mnt} && swapoff /dev/nbd1`, 600_000);
  for (const device of ['nbd0', 'nbd1']) {
    const { mostKiB } = await processBehind(guest, device);
    expect(mostKiB).toBeLessThan(160_000);
    expect(await at(`${tsnbd} -d ${device}`)).toBe(`/dev/${device} disconnected`);
  }
  if (isShort) expect(await at('dmesg')).not.toMatch(/\b(BUG|Oops|INFO: task|Out of memory)\b/);
}

test('a process that may not keep itself able to work then says so, and is not for swap', async () => {
  const image = await newImage('4M');
  const attach = (option: string) =>
    run(`setpriv --bounding-set -sys_resource ${tsnbd} -c nbd0 ${option} -f raw ${image}`);
  const why = 'it may not set PR_SET_IO_FLUSHER\n';
  expect(await attach('')).toEqual({
    status: 0,
    stdout: '',
    stderr: `tsnbd: when memory is short the process behind the device may hang or be killed: ${why}`,
  });
  expect(await run(`${tsnbd} -d nbd0`)).toMatchObject({ status: 0 });
  expect(await attach('--swap')).toEqual({
    status: 6,
    stdout: '',
    stderr: `tsnbd: a device for swap needs a process that stays in memory: ${why}`,
  });
  await expectNothingLeft();
});
