import { linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { DeviceRecord } from '#tsnbd/attach/devices.js';
import { mountSettings, sourceRequest } from '#tsnbd/cli/mount-options.js';
import { isOfSource, requireFits, sourceName } from '#tsnbd/mount/source.js';

const folder = mkdtempSync(join(tmpdir(), 'tsnbd-source-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
writeFileSync(path('image'), '');
writeFileSync(path('other'), '');
linkSync(path('image'), path('hard'));
symlinkSync('image', path('soft'));

const request = (spec: string, list = '') => sourceRequest(spec, mountSettings(list));
const made = {
  kernelApi: 'netlink',
  blockSizeBytes: 512,
  flags: 1,
  connections: 1,
  requestTimeoutSeconds: 0,
  attachedAtMs: 1,
} as const;
const image = (more: Partial<DeviceRecord> = {}): DeviceRecord => ({
  kind: 'image',
  imagePath: path('image'),
  format: 'raw',
  readOnly: false,
  temporary: false,
  ...made,
  ...more,
});
const remote = (host: string, exportName = ''): DeviceRecord => ({
  kind: 'remote',
  address: { kind: 'tcp', host, port: 10_809 },
  exportName,
  ...made,
});

describe('a device is of a source', () => {
  test('if that is the same export, or the same file by whatever name', () => {
    expect(isOfSource(remote('h'), request('nbd://h/', 'partition=2'))).toBe(true);
    expect(isOfSource(remote('h', 'disk'), request('nbd://h:10809/disk'))).toBe(true);
    for (const name of ['image', 'hard', 'soft']) expect(isOfSource(image(), request(path(name)))).toBe(true);
  });

  test('and not of another, nor of an overlay or a snapshot of it', () => {
    expect(isOfSource(remote('h'), request('nbd://i/'))).toBe(false);
    expect(isOfSource(remote('h'), request('nbd://h/disk'))).toBe(false);
    expect(isOfSource(remote('h'), request(path('image')))).toBe(false);
    for (const name of ['other', 'absent']) expect(isOfSource(image(), request(path(name)))).toBe(false);
    expect(isOfSource(image(), request(path('image'), 'snapshot'))).toBe(false);
    expect(isOfSource(image({ temporary: true }), request(path('image')))).toBe(false);
    expect(isOfSource(image({ snapshot: { idOrName: 'a' } }), request(path('image'), 'snapshot=b'))).toBe(false);
    expect(isOfSource(image({ snapshot: { idOrName: 'a' } }), request(path('image'), 'snapshot=a'))).toBe(true);
  });
});

test('a device that is there does only if it can be written to, where that is asked for, and has the format', () => {
  const fits = (record: DeviceRecord, list: string) => () => requireFits('nbd0', record, request(path('image'), list));
  expect(fits(image(), 'ro')).not.toThrow();
  expect(fits(image({ readOnly: true }), 'ro,format=raw')).not.toThrow();
  const there = `${path('image')} is attached already, as /dev/nbd0,`;
  expect(fits(image({ readOnly: true }), '')).toThrow(`${there} for reading only: mount all of it with ro, or none`);
  expect(fits(image(), 'format=qcow2')).toThrow(`${there} as raw, not as qcow2`);
});

test('a lock has the name of what is attached, however it is spelled', () => {
  const name = (spec: string, list = '') => {
    const made = request(spec, list);
    return sourceName(made);
  };
  expect(name('nbd://h/a')).toBe(name('nbd://h:10809/', 'name=a'));
  expect(name('nbd://h/a')).not.toBe(name('nbd://h/b'));
  expect(name(path('soft'))).toBe(name(path('image')));
  expect(name('nbd+unix:///a', 'socket=/x')).toBe(name('nbd+unix:///a?socket=/x'));
});
