import { afterEach, expect, test } from 'vitest';
import { long } from '../long.js';
import { assertQuietKernel, ok } from './guest.js';
import { expectNothingLeft } from './programs.js';
import { attached, dropStorage, ext4Folder } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

const FIRST_MODES = ['none', 'writethrough', 'writeback'] as const;
const MODES = [...FIRST_MODES, ...(long ? (['directsync', 'unsafe'] as const) : [])];
const MIB = 1 << 20;

test(`what was written by each cache mode (${MODES.join(', ')}) is there when the image is attached again`, async () => {
  const dir = await ext4Folder('64M');
  const image = `${dir}/disk.raw`;
  // Sparse, so that the modes write into holes and beside data; the last bytes stay a hole.
  await ok(`truncate -s 8M ${image} ${dir}/expected`);
  for (const [index, mode] of MODES.entries()) {
    const attachment = await attached(`--cache=${mode} ${image}`);
    await ok(`cmp /dev/nbd0 ${dir}/expected`);
    // Through the device's page cache, past it with a FLUSH, and a part of a block: read, changed and written.
    const writes = [
      `head -c ${MIB} /dev/urandom >${dir}/piece`,
      ...['/dev/nbd0', `${dir}/expected`].flatMap((target) => [
        `dd if=${dir}/piece of=${target} bs=1M seek=${index} conv=notrunc status=none`,
        `dd if=${dir}/piece of=${target} bs=64k count=4 seek=${80 + index * 8} oflag=direct conv=notrunc,fsync status=none`,
        `printf ${mode} | dd of=${target} bs=1 seek=${index * MIB + 12_345} conv=notrunc status=none`,
      ]),
    ];
    await ok(writes.join(' && '));
    const { status, stderr } = await attachment.stop();
    expect(status).toBe(0);
    expect(stderr).toMatch(
      mode === 'unsafe' ? /^tsnbd: .* is opened as unsafe: a flush is answered at once.*\n$/ : /^$/,
    );
    await ok(`cmp ${image} ${dir}/expected`);
  }
});
