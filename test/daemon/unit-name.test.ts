import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { escapedPath, mountUnit } from '#tsnbd/daemon/unit-name.js';

test('units are named as systemd names them', () => {
  const folders = ['/', '/mnt/test1', '/mnt//my disk/', '/.hidden/a-b', '/mnt/é.1', '/a:b_c/"quoted"\\x/%n'];
  const named = execFileSync('systemd-escape', ['--path', '--', ...folders], { encoding: 'utf8' }).trim();
  expect(folders.map(escapedPath).join(' ')).toBe(named);
  expect(mountUnit('/mnt/test1')).toBe('mnt-test1.mount');
});
