import { rmSync } from 'node:fs';
import { release } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import type { KernelError } from '#tsnbd/kernel/errors.js';
import {
  attachedDevices,
  deviceBackend,
  deviceNumber,
  deviceState,
  devicesWithBackend,
  nbdPresence,
  opensOfDevices,
  queueAttribute,
  requestCounts,
  requireDevice,
  waitFor,
} from '#tsnbd/kernel/sysfs.js';
import { makeTree, twoDevices } from './tree.js';

let root = '';

afterEach(() => {
  if (root !== '') rmSync(root, { recursive: true });
  root = '';
});

function tree(files: Readonly<Record<string, string | undefined>>): string {
  root = makeTree(files);
  return root;
}

function refusal(act: () => void): Pick<KernelError, 'code' | 'message'> {
  try {
    act();
  } catch (error) {
    return error as KernelError;
  }
  throw new Error('it was not refused');
}

describe('how often devices are open', () => {
  it('is what the module counts beyond one for each that is configured', () => {
    const files = { ...twoDevices, 'sys/module/nbd/refcnt': '1\n' };
    expect(opensOfDevices(tree(files))).toBe(0);
    rmSync(root, { recursive: true });
    expect(opensOfDevices(tree({ ...files, 'sys/module/nbd/refcnt': '3\n' }))).toBe(2);
    rmSync(root, { recursive: true });
    // One that is not up counts for nothing.
    expect(opensOfDevices(tree({ ...files, 'sys/block/nbd1/size': '8\n' }))).toBe(0);
    rmSync(root, { recursive: true });
    expect(opensOfDevices(tree(twoDevices))).toBe(undefined);
  });
});

describe('the state of a device', () => {
  it('that is up: size in bytes, thread, read-only, partitions in their order', () => {
    expect(deviceState('nbd0', tree(twoDevices))).toEqual({
      exists: true,
      sizeBytes: 16 * 2 ** 20,
      pid: 713,
      readOnly: true,
      partitions: ['nbd0p1', 'nbd0p2', 'nbd0p10'],
      maxPart: 31,
    });
  });

  it('that is free: no size, no thread', () => {
    const state = deviceState('nbd1', tree(twoDevices));
    expect(state).toMatchObject({ exists: true, sizeBytes: 0, pid: undefined, readOnly: false, partitions: [] });
  });

  it('counts its requests: reads, writes, discards and flushes', () => {
    const stat = '    10  1 80 5   200 2 1600 7   3 9 12   4000 0 8 1   50000 6\n';
    tree({ 'sys/block/nbd0/stat': stat });
    expect(requestCounts('nbd0', root)).toEqual({ inFlight: 3, completed: 54_210 });
    expect(requestCounts('nbd1', root)).toEqual({ inFlight: 0, completed: 0 });
  });

  it('is attached when it has a thread or a size', () => {
    tree({
      'sys/block/nbd10/size': '8\n',
      'sys/block/nbd9/size': '0\n',
      'sys/block/nbd2/pid': '7\n',
      'sys/block/nbd2/size': '0\n',
      'sys/block/sda/size': '8\n',
    });
    expect(attachedDevices(root)).toEqual(['nbd2', 'nbd10']);
  });

  it('that is not there', () => {
    expect(deviceState('nbd7', tree({}))).toMatchObject({ exists: false, sizeBytes: 0, pid: undefined, maxPart: 0 });
  });

  it('has a number, and so has each partition', () => {
    tree(twoDevices);
    expect(deviceNumber('nbd0', root)).toBe('43:0');
    expect(deviceNumber('nbd0p10', root)).toBe('43:10');
    expect(deviceNumber('nbd0p3', root)).toBe(undefined);
  });
});

it('a setting of a queue is that of the disk, also for a partition', () => {
  tree({
    'sys/devices/sda/queue/rotational': '1\n',
    'sys/devices/sda/sda1/partition': '1\n',
    'sys/devices/queue/rotational': '7\n',
    'sys/dev/block/8:0': '-> ../../devices/sda',
    'sys/dev/block/8:1': '-> ../../devices/sda/sda1',
  });
  expect(queueAttribute('8:0', 'rotational', root)).toBe(1);
  expect(queueAttribute('8:1', 'rotational', root)).toBe(1);
  expect(queueAttribute('8:1', 'no_such_thing', root)).toBe(undefined);
  expect(queueAttribute('8:2', 'rotational', root)).toBe(undefined);
});

it('a device that netlink connected has the mark of who did, others have none', () => {
  tree({ 'sys/block/nbd0/backend': 'tsnbd:7\n', 'sys/block/nbd1/backend': '\n', 'sys/block/nbd2/size': '0\n' });
  expect(['nbd0', 'nbd1', 'nbd2', 'nbd3'].map((name) => deviceBackend(name, root))).toEqual([
    'tsnbd:7',
    '',
    undefined,
    undefined,
  ]);
  expect(devicesWithBackend('tsnbd:7', root)).toEqual(['nbd0']);
  expect(devicesWithBackend('tsnbd', root)).toEqual([]);
  rmSync(root, { recursive: true });
  tree({ 'sys/block/nbd0/backend': undefined });
  expect(() => deviceBackend('nbd0', root)).toThrow('EISDIR');
});

describe('the driver', () => {
  it('is a module, built in, or not there', () => {
    expect(nbdPresence(tree(twoDevices))).toEqual({ loaded: true, builtIn: false, devicesMax: 2, maxPart: 31 });
    rmSync(root, { recursive: true });
    const { 'sys/module/nbd/initstate': _, ...builtIn } = twoDevices;
    expect(nbdPresence(tree(builtIn))).toMatchObject({ loaded: true, builtIn: true });
    rmSync(root, { recursive: true });
    expect(nbdPresence(tree({}))).toMatchObject({ loaded: false });
  });

  it('that is not loaded is to be loaded, unless this kernel comes without it', () => {
    const dep = `lib/modules/${release()}/modules.dep`;
    for (const text of [undefined, 'kernel/drivers/block/nbd.ko.xz:\n']) {
      tree(text === undefined ? {} : { [dep]: text });
      expect(refusal(() => requireDevice('nbd0', root))).toMatchObject({
        code: 'no-module',
        message: 'the nbd module is not loaded; load it with: modprobe nbd max_part=8',
      });
      rmSync(root, { recursive: true });
    }
    tree({ [dep]: 'kernel/drivers/block/loop.ko:\n' });
    const { code, message } = refusal(() => requireDevice('nbd0', root));
    expect(code).toBe('no-module');
    expect(message).toContain('comes without the nbd module');
  });

  it('that has fewer devices says how many, and how to get more', () => {
    const { code, message } = refusal(() => requireDevice('nbd9', tree(twoDevices)));
    expect(code).toBe('no-device');
    expect(message).toBe(
      '/dev/nbd9 does not exist: this kernel has 2 devices (nbds_max=2); ' +
        'modprobe -r nbd; modprobe nbd max_part=8 nbds_max=10 makes more',
    );
    rmSync(root, { recursive: true });
    const { 'sys/module/nbd/initstate': _, ...builtIn } = twoDevices;
    expect(refusal(() => requireDevice('nbd9', tree(builtIn))).message).toContain(
      "nbd.nbds_max=10 on the kernel's command line",
    );
  });

  it('whose device has no node in /dev says how to make it', () => {
    tree(twoDevices);
    requireDevice('nbd0', root);
    expect(refusal(() => requireDevice('nbd1', root))).toMatchObject({
      code: 'no-device',
      message: 'the kernel has nbd1, but /dev/nbd1 is missing; make it with: mknod /dev/nbd1 b 43 32',
    });
  });
});

describe('waiting', () => {
  it('ends as soon as it is so', async () => {
    let looks = 0;
    await waitFor('the third look', 10_000, () => {
      looks += 1;
      return looks === 3;
    });
    expect(looks).toBe(3);
  });

  it('ends at its limit with what it waited for, and looks at least once', async () => {
    const start = performance.now();
    await expect(waitFor('nbd0p1 to appear', 200, () => false)).rejects.toMatchObject({
      code: 'time-limit',
      message: 'waited 0.2 s in vain for nbd0p1 to appear',
    });
    expect(performance.now() - start).toBeGreaterThan(190);
    await waitFor('nothing', 0, () => true);
  });
});
