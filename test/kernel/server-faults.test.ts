import { afterAll, describe, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, testProgram, tsnbd, tsnbdClient } from './programs.js';
import { attachHere, dropClients, hears } from './supervised.js';

// A server that answers wrongly on a device in use, here under a mounted file system; at an attach: hostile-servers.test.ts. Most of
// it is waiting, so all wait at the same time.

const DEVICES = ['nbd0', 'nbd1', 'nbd2', 'nbd3'];

afterAll(async () => {
  await dropClients();
  for (const device of DEVICES) await expectNothingLeft(device);
  await assertQuietKernel();
});

/** A disk with a file system on it, and what its server is to do with the next request of a kind. */
async function startFaulty() {
  const dir = await memoryDir('faulty');
  const server = await startServer(
    `node ${testProgram('faulty-server')} ${dir} ${32 * 2 ** 20}`,
    isSocket(`${dir}/sock`),
  );
  return {
    dir,
    mnt: `${dir}/mnt`,
    server,
    spoil: (fault: string) => ok(`echo ${fault} >${dir}/new && mv ${dir}/new ${dir}/fault`),
  };
}
type Faulty = Awaited<ReturnType<typeof startFaulty>>;

const makeFiles = ({ dir, mnt }: Faulty, device: string) =>
  ok(
    `mkdir -p ${mnt} && mkfs.ext4 -q /dev/${device} && mount /dev/${device} ${mnt} && head -c 1M /dev/urandom >${dir}/sent &&
    cp ${dir}/sent ${mnt}/file && sync ${mnt}`,
    { limitMs: 60_000 },
  );

/** Reads a file from the device, or writes one to it. */
const use = ({ dir, mnt }: Faulty, fault: string) =>
  fault.startsWith('read')
    ? `dd if=${mnt}/file of=${dir}/got bs=64k iflag=direct status=none && cmp ${dir}/got ${dir}/sent`
    : `dd if=${dir}/sent of=${mnt}/written bs=64k oflag=direct conv=fsync status=none && cmp ${mnt}/written ${dir}/sent`;

const EIO = /Input\/output error/;

describe.concurrent('a server that answers wrongly', () => {
  test('by netlink has its connection replaced, and nobody notices', async () => {
    const faulty = await startFaulty();
    const client = await attachHere(`-unix ${faulty.dir}/sock nbd0`);
    await makeFiles(faulty, 'nbd0');
    const faults = ['read garbage', 'write cookie', 'read cut', 'write cut'];
    for (const [index, fault] of faults.entries()) {
      await faulty.spoil(fault);
      await ok(`timeout 60 sh -c '${use(faulty, fault)}' && ! test -e ${faulty.dir}/fault`);
      await hears(client, new RegExp(`(is lost; connecting again[\\s\\S]*again after[\\s\\S]*){${index + 1}}`));
    }
    expect(await ok(`${tsnbd} status nbd0`)).toMatch(
      new RegExp(`^state: connected$[\\s\\S]*^reconnects: ${faults.length}$`, 'm'),
    );

    // An error is an answer.
    await faulty.spoil('read error');
    expect((await run(use(faulty, 'read'))).stderr).toMatch(EIO);
    await ok(use(faulty, 'read'));
    expect(await ok(`${tsnbd} status nbd0`)).toMatch(new RegExp(`^reconnects: ${faults.length}$`, 'm'));
    await ok(`umount ${faulty.mnt} && e2fsck -fn /dev/nbd0 2>&1`);
    expect(await client.stop()).toMatchObject({ status: 0 });
    await faulty.server.stop('KILL');
  });

  test('half a reply, and no end of it, is waited for as a slow one is: until the limit of a request, or the server’s end', async () => {
    const limited = await startFaulty();
    const client = await attachHere(`-unix ${limited.dir}/sock nbd3 -t 2`);
    const patient = await startFaulty();
    const waiting = await attachHere(`-unix ${patient.dir}/sock nbd1`);
    for (const [faulty, device] of [
      [limited, 'nbd3'],
      [patient, 'nbd1'],
    ] as const) {
      await makeFiles(faulty, device);
      await faulty.spoil('read half');
    }
    const reader = await background(`exec dd if=${patient.mnt}/file of=/dev/null bs=64k iflag=direct status=none`);
    await ok(`timeout 60 sh -c '${use(limited, 'read')}'`);
    await hears(client, /is lost; connecting again[\s\S]*again after/);
    await limited.spoil('write half');
    await ok(`timeout 60 sh -c '${use(limited, 'write')}'`);
    await ok(`umount ${limited.mnt}`);
    expect(await client.stop()).toMatchObject({ status: 0 });

    expect(waiting.output().stderr).not.toMatch(/lost/);
    // As long as it is connected, a detach by force waits for its flush.
    await patient.server.stop('KILL');
    await hears(waiting, /is lost; connecting again/);
    expect((await run(`${tsnbd} -d --force nbd1`)).stderr).toMatch(/cut off, but not free until nothing uses it/);
    expect(await reader.result).toMatchObject({ status: 1, stderr: expect.stringMatching(EIO) });
    await ok(`umount ${patient.mnt}`);
    await limited.server.stop('KILL');
  });

  test('by ioctl is an input/output error and the end of the device', async () => {
    for (const [fault, options] of [
      ['read garbage', ''],
      ['write cookie', ''],
      ['read cut', ''],
      ['read half', '-t 2'],
    ] as const) {
      const faulty = await startFaulty();
      const client = await attachHere(`-unix ${faulty.dir}/sock nbd2 -L ${options}`);
      await makeFiles(faulty, 'nbd2');
      await faulty.spoil('read error');
      expect((await run(use(faulty, 'read'))).stderr).toMatch(EIO);
      await ok(use(faulty, 'read'));
      await faulty.spoil(fault);
      expect((await run(`timeout 60 sh -c '${use(faulty, fault)}'`)).stderr, fault).toMatch(EIO);
      const { status, stderr } = await client.result;
      expect(stderr).toMatch(/the connection of \/dev\/nbd2 was lost; the device is gone\n$/);
      expect(status).toBe(8);
      await ok(`umount ${faulty.mnt}`);
      await until('! test -e /sys/block/nbd2/pid');
      await faulty.server.stop('KILL');
    }
    await ok(`${tsnbdClient} -d nbd2`);
  });
});
