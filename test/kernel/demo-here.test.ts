import { join } from 'node:path';
import { expect, test } from 'vitest';
import { inLongRun } from '../long.js';
import { assertQuietKernel, background, memoryDir, run } from './guest.js';
import { expectNothingLeft, ROOT } from './programs.js';

/** What the walk has said when it is interrupted: nothing is attached yet, it is being written to, mounted, without its server, of another program. */
const MOMENTS = [
  ['== An image is made', 'INT', 130],
  ['$ mkfs.ext4 -q /dev/nbd0p2', 'INT', 130],
  ['== A device in use is not detached', 'TERM', 143],
  ['(the server was killed)', 'INT', 130],
  ['== qemu-nbd with a qcow2 image', 'INT', 130],
] as const;

const PROGRAMS = '[d]emo-walk|[t]snbd.js|[t]snbd-client.js|[n]bd-server|[q]emu-nbd|[n]bdkit';

async function startDemo() {
  const folder = await memoryDir('demo');
  // Who is started beside others does not hear SIGINT, and no shell can change that. The programs are those of a user.
  const settings = `--default-signal=INT PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=${folder}`;
  const command = `exec env ${settings} ${join(ROOT, 'scripts/demo')} --here --yes`;
  return { folder, demo: await background(command, { limitMs: 900_000 }) };
}

async function expectNothingOf(folder: string): Promise<void> {
  const left = `ls -A ${folder}; grep ${folder} /proc/mounts; pgrep -af '${PROGRAMS}'; losetup -l --noheadings`;
  expect((await run(left)).stdout).toBe('');
  await expectNothingLeft();
  await assertQuietKernel();
}

test('scripts/demo --here goes all the way, as it does in the guest that scripts/demo boots, and leaves nothing', async () => {
  const { folder, demo } = await startDemo();
  const { status, stdout, stderr } = await demo.result;
  expect({ status, stderr, end: stdout.split('\n').at(-2) }).toEqual({
    status: 0,
    stderr: '',
    end: '== Done: the device is free, nothing is left behind',
  });
  const commands = stdout.split('\n').filter((line) => line.startsWith('$ '));
  expect(commands.slice(0, 2)).toEqual(['$ tsnbd create -f qcow2 test01.img 10G', '$ tsnbd info test01.img']);
  expect(commands.slice(-2)).toEqual(['$ tsnbd check test01.img', '$ qemu-img check test01.img']);
  await expectNothingOf(folder);
});

test.each(inLongRun(MOMENTS))(
  "scripts/demo --here leaves nothing behind when at '%s' there comes %s",
  async (said, signal, status) => {
    const { folder, demo } = await startDemo();
    await expect.poll(() => demo.output().stdout, { timeout: 600_000 }).toContain(said);
    expect(demo.output().stdout).toContain(`below ${folder}/`);
    const { status: ended, stderr } = await demo.stop(signal);
    expect({ ended, stderr }).toEqual({ ended: status, stderr: '' });
    await expectNothingOf(folder);
  },
);
