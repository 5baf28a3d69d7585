import { describe, expect, test } from 'vitest';
import { MOUNT_OPTIONS, mountOptionsHelp, mountSettings, sourceRequest } from '#tsnbd/cli/mount-options.js';

const request = (spec: string, list = '') => sourceRequest(spec, mountSettings(list));

describe('of the options of a mount', () => {
  test('ours are taken out, and what mount(8) and systemd deal with; the rest is for the file system', () => {
    const list =
      'rw,noatime,partition=2,_netdev,nofail,x-systemd.automount,X-mount.mkdir,fsck=auto,discard,user,comment=x,defaults,data="a,b"';
    expect(mountSettings(list)).toEqual({
      own: { partition: { kind: 'number', number: 2 }, fsck: 'auto' },
      inner: ['rw', 'noatime', 'discard', 'data="a,b"'],
      readOnly: false,
      remount: false,
      nofail: true,
      netdev: true,
    });
    expect(mountSettings('remount,ro,helper=tsnbd')).toMatchObject({ remount: true, readOnly: true, inner: ['ro'] });
  });

  test('the last of ro and rw counts, and an internal snapshot is read-only', () => {
    expect(mountSettings('ro,rw').readOnly).toBe(false);
    expect(mountSettings('rw,ro').readOnly).toBe(true);
    expect(mountSettings('rw,noatime,snapshot=one')).toMatchObject({ readOnly: true, inner: ['noatime', 'ro'] });
    expect(mountSettings('rw,snapshot')).toMatchObject({ own: { snapshot: true }, readOnly: false, inner: ['rw'] });
  });

  test.each([
    ['partition=label:my "disk"', { partition: { kind: 'label', text: 'my "disk"' } }],
    ['partition=uuid:AB-cd', { partition: { kind: 'uuid', text: 'AB-cd' } }],
    ['fstype=xfs,device=/dev/nbd3,format=qcow2', { fstype: 'xfs', device: 'nbd3', format: 'qcow2' }],
    ['cache=none,detect-zeroes=on', { cache: 'none', 'detect-zeroes': 'on' }],
    [
      'timeout=7,dead-timeout=20,retry-limit=60,persist',
      { timeout: 7, 'dead-timeout': 20, 'retry-limit': 60, persist: true },
    ],
    ['nopersist,name=a=b,socket=/run/x', { nopersist: true, name: 'a=b', socket: '/run/x' }],
    ['name="a,b",connections=1', { name: 'a,b', connections: 1 }],
  ])('%s', (list, own) => {
    expect(mountSettings(list).own).toEqual(own);
  });

  test.each([
    ['partition=x', "option partition: 'x' is not a partition: N (1 to 255), label:NAME or uuid:UUID"],
    ['partition=0', "option partition: '0' is not a partition: N (1 to 255), label:NAME or uuid:UUID"],
    ['partition=256', "option partition: '256' is not a partition: N (1 to 255), label:NAME or uuid:UUID"],
    ['partition', 'option partition: it needs a value, N|label:NAME|uuid:UUID'],
    ['persist=yes', 'option persist: it takes no value'],
    ['fstype=ext4/../x', "option fstype: 'ext4/../x' is not a type of file system"],
    ['fstype="ext4,xfs"', "option fstype: 'ext4,xfs' is not a type of file system"],
    ['fstype=-o', "option fstype: '-o' is not a type of file system"],
    ['socket=run/x', "option socket: 'run/x' is not an absolute path"],
    ['fsck=maybe', "option fsck: 'maybe' is not a way to check (yes, auto, no)"],
    ['connections=65', "option connections: '65' is not a number of connections (1 to 64)"],
    ['tls-psk=x', 'option tls-psk: TLS is not supported yet'],
    ['loop', 'option loop: it does not go with tsnbd'],
    ['offset=5', 'option offset: it does not go with tsnbd'],
    ['name=a\nb', 'the options hold a control character'],
  ])('%j is refused', (list, message) => {
    expect(() => mountSettings(list)).toThrow(message);
  });

  test('none of ours is called as one that mount(8) or systemd take for theirs', () => {
    for (const name of Object.keys(MOUNT_OPTIONS)) expect(name).not.toMatch(/^(loop|offset|sizelimit|encryption|x-)/i);
    expect(mountOptionsHelp().join('\n')).toContain('"snapshot[=SNAPSHOT]": ');
  });
});

describe('what is attached', () => {
  test('is the export of a URI, with its name and socket where they stand', () => {
    expect(request('nbd://192.0.2.7:4000/', 'partition=1')).toEqual({
      kind: 'remote',
      address: { kind: 'tcp', host: '192.0.2.7', port: 4000 },
      exportName: '',
      device: undefined,
      kernelApi: 'auto',
      forMounts: true,
      locksMemory: false,
      blockSizeBytes: undefined,
      connections: 1,
      requestTimeoutSeconds: 0,
      persist: 'where-possible',
      unattended: false,
      deadTimeoutSeconds: 300,
      retryLimitSeconds: undefined,
    });
    const unix = { address: { kind: 'unix', path: '/run/a b,c=?&d' }, exportName: 'disk' };
    expect(request('nbd+unix:///disk', 'socket="/run/a b,c=?&d"')).toMatchObject(unix);
    expect(request('nbd+unix:///', 'socket=/run/x,name=disk')).toMatchObject({
      address: { kind: 'unix', path: '/run/x' },
      exportName: 'disk',
    });
    expect(request('nbd+unix:///?socket=/run/x', 'nopersist')).toMatchObject({ persist: 'no', unattended: true });
    expect(request('nbd://h', 'persist,dead-timeout=9')).toMatchObject({ persist: 'required', deadTimeoutSeconds: 9 });
  });

  test('is an image, for reading only with ro', () => {
    expect(request('/srv/x.img', 'format=qcow2,ro')).toMatchObject({
      kind: 'image',
      imagePath: '/srv/x.img',
      format: 'qcow2',
      readOnly: true,
      temporary: false,
    });
    expect(request('/srv/x.img', 'snapshot,ro')).toMatchObject({ temporary: true, readOnly: false });
    expect(request('/srv/x.img', 'snapshot=one')).toMatchObject({ snapshot: { idOrName: 'one' }, readOnly: true });
  });

  test.each([
    ['nbd://h', 'format=raw', 'option format: it is for images, and SPEC is none'],
    ['/x.img', 'timeout=3', 'option timeout: it is for a URI, and SPEC is none'],
    ['nbd://h', 'socket=/run/x', 'SPEC: option socket: it is for a nbd+unix URI'],
    ['nbd+unix:///?socket=/a', 'socket=/b', 'SPEC: the URI names a socket, so there can be no option socket'],
    ['nbd://h/a', 'name=b', 'SPEC: the URI names an export, so there can be no option name'],
    ['nbd://h', 'persist,nopersist', 'options persist and nopersist: only one of them at a time'],
    ['nbd://h', 'nopersist,retry-limit=3', 'option retry-limit: it has no effect with nopersist'],
    ['nbd://h:0/', '', "SPEC: 'nbd://h:0/' is bad at character 9: '0' is not a port (1 to 65535)"],
    ['nbds://h/', '', "SPEC: 'nbds://h/' is bad at character 1: 'nbds' asks for TLS, which is not supported yet"],
  ])('not by %s with %j', (spec, list, message) => {
    expect(() => request(spec, list)).toThrow(message);
  });
});
