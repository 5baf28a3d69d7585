import { afterEach, beforeEach, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, newImage, tsnbdHere } from './programs.js';

let groups = '';
beforeEach(async () => {
  groups = await memoryDir('groups');
  await ok(`mount -t cgroup2 none ${groups} && echo +pids >${groups}/cgroup.subtree_control && mkdir ${groups}/few`);
});
afterEach(async () => {
  await ok(`rmdir ${groups}/few && umount ${groups}`);
  await expectNothingLeft();
  await assertQuietKernel();
});

test('an image is not attached where a thread is not to be had, for it or for NBD_DO_IT, which is told', async () => {
  const image = await newImage('4M');
  const least = Number(await ok(`node -p 'fs.readdirSync("/proc/self/task").length'`));
  const attach = (threads: number) =>
    run(`echo ${threads} >${groups}/few/pids.max; echo $$ >${groups}/few/cgroup.procs
      exec ${tsnbdHere} --kernel-api=ioctl -c nbd0 -f raw ${image}`);
  const missing = 'no thread can be started: EAGAIN';
  expect(await attach(least)).toEqual({ status: 1, stdout: '', stderr: `tsnbd: ${missing}\n` });
  await expectNothingLeft();
  const holds = `the thread that holds /dev/nbd0 failed: ${missing}`;
  expect(await attach(least + 1)).toEqual({ status: 1, stdout: '', stderr: `tsnbd: ${holds}\n` });
});
