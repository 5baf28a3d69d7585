import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Guest } from '../../scripts/kernel-bench-guest.js';
import { withOwnGuest } from './guest.js';
import { tsnbd } from './programs.js';

// A device that the kernel writes to when it has no memory left, and one that it swaps to: neither may wait for the other, or
// for memory. The images lie on the host: the guest's own files are in its memory.

const long = process.env.TSNBD_TEST_LONG === '1';
const MEMORY = long ? '512M' : '256M';
const WRITTEN_MIB = long ? 4096 : 64;
/** What a program wants to have in memory, beside the rest. */
const EATEN_MIB = long ? 600 : 200;
const PIECE_MIB = long ? 32 : 16;

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

const PAUSE_SECONDS = long ? 0.5 : 10_000;
/** Writes to all of its memory, says so, and after a pause goes on. */
const EATER = `perl -e 'my @all;
  for (my $byte = 0; ; $byte++) {
    for my $n (1 .. $ARGV[0]) {
      $all[$n] = "x" x 1048576 unless $byte;
      for (my $at = $byte % 4096; $at < 1048576; $at += 4096) { substr($all[$n], $at, 1) = "y" }
    }
    open(my $said, ">", "eaten") unless $byte;
    select(undef, undef, undef, ${PAUSE_SECONDS});
  }'`;

async function ok(guest: Guest, command: string, limitMs = 60_000): Promise<string> {
  const { status, stdout, stderr } = await guest.run(command, { limitMs });
  if (status !== 0) throw new Error(`status ${status} of: ${command}\n--- stdout\n${stdout}\n--- stderr\n${stderr}`);
  return stdout.trimEnd();
}

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of the kernel's <linux/sched.h>: what PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER = 0x180000;

/** The process behind a device: what it tells of itself in /proc. */
async function processBehind(guest: Guest, device: string) {
  const pid = await ok(guest, `sed 's/.*"pid":\\([0-9]*\\).*/\\1/' /run/tsnbd/${device}.json`);
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

test(`${WRITTEN_MIB} MiB written to a mounted image, and swap on another, with ${MEMORY} of memory and a program that eats it`, async () => {
  await withOwnGuest({ memory: MEMORY }, async (guest) => {
    const dir = guest.workDir;
    writeFileSync(join(dir, 'collects-garbage.cjs'), COLLECTS_GARBAGE);
    await ok(guest, `truncate -s ${2 * WRITTEN_MIB}M disk && truncate -s 1G swap && mkdir mnt /tmp/mnt`);
    const environment = `NODE_OPTIONS=--require=${dir}/collects-garbage.cjs`;
    await ok(guest, `${environment} ${tsnbd} -c nbd0 -f raw ${dir}/disk`);
    await ok(guest, `${environment} ${tsnbd} --swap -c nbd1 -f raw ${dir}/swap`);
    const [plain, locked] = [await processBehind(guest, 'nbd0'), await processBehind(guest, 'nbd1')];
    for (const seen of [plain, locked]) {
      expect(seen).toMatchObject({ oomScore: '-1000', flushers: seen.threads });
      expect(seen.threads).toBeGreaterThan(6);
    }
    expect(locked.lockedKiB).toBeGreaterThan(plain.lockedKiB + 10_000);

    await ok(guest, 'mkswap /dev/nbd1 >/dev/null && swapon /dev/nbd1');
    await ok(guest, 'mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /tmp/mnt');
    const eater = guest.run(`exec ${EATER} ${EATEN_MIB}`, { limitMs: 3_000_000 });
    eater.catch(() => {}); // of a dead guest the others tell
    await ok(guest, `head -c ${PIECE_MIB}M /dev/urandom >piece; until test -e eaten; do sleep 0.1; done`, 600_000);
    const pieces = WRITTEN_MIB / PIECE_MIB;
    await ok(guest, `for n in $(seq ${pieces}); do cp piece /tmp/mnt/$n || exit 1; done; sync /tmp/mnt`, 2_400_000);
    expect(Number(await ok(guest, "awk '/nbd1/ { print $4 }' /proc/swaps"))).toBeGreaterThan(10_000);
    await ok(guest, 'pkill -KILL perl');
    expect((await eater).status).toBe(137);
    await ok(guest, 'umount /tmp/mnt && mount /dev/nbd0 /tmp/mnt');
    await ok(guest, `for n in $(seq ${pieces}); do cmp piece /tmp/mnt/$n || exit 1; done`, 2_400_000);

    await ok(guest, 'umount /tmp/mnt && swapoff /dev/nbd1', 300_000);
    for (const device of ['nbd0', 'nbd1']) {
      const { mostKiB } = await processBehind(guest, device);
      expect(mostKiB).toBeLessThan(160_000);
      expect(await ok(guest, `${tsnbd} -d ${device}`)).toBe(`/dev/${device} disconnected`);
    }
    expect(await ok(guest, 'dmesg')).not.toMatch(/\b(BUG|Oops|INFO: task|Out of memory)\b/);
  });
});
