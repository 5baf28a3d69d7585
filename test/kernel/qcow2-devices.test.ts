import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { assertQuietKernel, type Background, background, freshDir, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, pidBehind, tsnbd } from './programs.js';

const CLUSTER = 65_536;
const COPIED = 1n << 63n;
const PSS_MAX_KIB = 100 * 1_024;

let dir: string;
let syslog: Background | undefined;
beforeEach(async () => {
  dir = await memoryDir('qcow2');
});
afterEach(async () => {
  await syslog?.stop();
  syslog = undefined;
  await expectNothingLeft();
  await assertQuietKernel();
  await ok(`rm -rf ${dir}`);
});

/** Of the process behind the device, in KiB; the tests' own library gives it memory that it has not asked for. */
const pssKiB = async () =>
  Number(await ok(`sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' /proc/${await pidBehind('nbd0')}/smaps_rollup`));

test('an image of 1 TiB takes no more than 100 MiB of memory, when it is attached and when all of it was used', async () => {
  await ok(`${tsnbd} create -q -f qcow2 ${dir}/disk 1T && env -u LD_PRELOAD ${tsnbd} -c nbd0 -f qcow2 ${dir}/disk`);
  expect(await pssKiB()).toBeLessThan(PSS_MAX_KIB);
  // More tables than the cache of them holds are made, and read again.
  const job = (how: string) =>
    `fio --name=${how} --filename=/dev/nbd0 --direct=1 --rw=${how} --bs=4k --iodepth=16 --ioengine=libaio --number_ios=5000 --randseed=5 --output-format=terse >/dev/null`;
  await ok(`${job('randwrite')} && sync /dev/nbd0 && ${job('randread')}`);
  expect(await pssKiB()).toBeLessThan(PSS_MAX_KIB);
  await ok(`${tsnbd} -d nbd0 && qemu-img check -q ${dir}/disk`);
});

/** An image on which the first write marks it as corrupt: the first cluster is said to lie where the L1 table is. */
async function newContradiction(name: string): Promise<string> {
  const clusters = new Map([[0, { kind: 'data', bytes: new Uint8Array(CLUSTER) } as const]]);
  const { bytes, l1At, l2At } = qcow2Bytes({ sizeBytes: 16 * CLUSTER, clusters });
  bytes.writeBigUInt64BE(COPIED | BigInt(l1At), l2At.get(0) ?? 0);
  const file = join(freshDir('contradiction'), name);
  writeFileSync(file, bytes);
  await ok(`cp ${file} ${dir}/${name}`);
  return `${dir}/${name}`;
}

test('that an image is marked as corrupt is in the log at once, whichever process serves it by then', async () => {
  syslog = await background(`exec busybox syslogd -n -O ${dir}/log`);
  await until(isSocket('/dev/log'));
  const attach = `${tsnbd} -c nbd0 --dead-timeout=60 --cache=writethrough -f qcow2`;
  const ways: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['attached', async () => {}],
    ['taken-over', () => ok(`${tsnbd} restart nbd0`)],
    ['revived', async () => ok(`kill -KILL ${await pidBehind('nbd0')} && ${tsnbd} restart nbd0`)],
  ];
  for (const [name, bring] of ways) {
    const image = await newContradiction(name);
    await ok(`${attach} ${image}`);
    await bring();
    const process = await pidBehind('nbd0');
    expect((await run('dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct')).stderr).toMatch(/error/);
    const told = `daemon.warn tsnbd.${process}.: nbd0: ${image} has tables that contradict each other, and nothing is written`;
    await until(`grep '${told}' ${dir}/log`);
    await run(`${tsnbd} -d nbd0`);
  }
});
