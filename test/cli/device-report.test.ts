import { expect, test } from 'vitest';
import { deviceAsText, devicesAsJson, devicesAsText } from '#tsnbd/cli/device-report.js';

const counts = { inFlight: 2, completed: 70 };
const ours = {
  device: '/dev/nbd0',
  sizeBytes: 10 * 2 ** 30,
  state: 'dead',
  readOnly: false,
  source: 'nbd://192.0.2.7/disk',
  format: undefined,
  connections: 1,
  kernelApi: 'netlink',
  pid: 4711,
  mounts: ['/mnt/a b', '/srv'],
  record: {
    kind: 'remote',
    kernelApi: 'netlink',
    blockSizeBytes: 512,
    flags: 0x5,
    connections: 1,
    requestTimeoutSeconds: 0,
    deadTimeoutSeconds: 300,
    attachedAtMs: Date.now() - 65_500,
  },
  link: { state: 'dead', seconds: 17, reconnects: 3 },
  writeErrors: undefined,
  counts,
} as const;
const another = {
  device: '/dev/nbd12',
  sizeBytes: 512,
  state: 'configured',
  readOnly: true,
  source: undefined,
  format: undefined,
  connections: undefined,
  kernelApi: undefined,
  pid: undefined,
  mounts: [],
  record: undefined,
  link: undefined,
  writeErrors: undefined,
  counts,
} as const;

test('devices are a line each, below headings; without one there is nothing', () => {
  expect(devicesAsText([])).toBe('');
  expect(devicesAsText([ours, another])).toBe(
    [
      'DEVICE      SIZE   STATE       MODE  SOURCE                FORMAT  CONNECTIONS  API      PID   MOUNTS',
      '/dev/nbd0   10GiB  dead        rw    nbd://192.0.2.7/disk  -       1            netlink  4711  /mnt/a b,/srv',
      '/dev/nbd12  512B   configured  ro    -                     -       -            -        -     -',
      '',
    ].join('\n'),
  );
});

test('in JSON what is not known is null', () => {
  expect(JSON.parse(devicesAsJson([another]))).toEqual([
    {
      device: '/dev/nbd12',
      sizeBytes: 512,
      state: 'configured',
      readOnly: true,
      source: null,
      format: null,
      connections: null,
      kernelApi: null,
      pid: null,
      mounts: [],
    },
  ]);
});

test('a status has limits, flags, times and counts of a device of ours, and of another what the kernel tells', () => {
  expect(deviceAsText(ours)).toContain(
    [
      'blockSizeBytes: 512',
      'flags: can_flush',
      'connectLimitSeconds: 10',
      'requestTimeoutSeconds: 0',
      'deadTimeoutSeconds: 300',
      'uptimeSeconds: 65',
      'stateSeconds: 17',
      'reconnects: 3',
      'requestsUnderWay: 2',
      'requestsDone: 70',
      'writeErrors: nobody counts them',
      '',
    ].join('\n'),
  );
  expect(deviceAsText(another)).toMatch(
    /mounts: -\nrequestsUnderWay: 2\nrequestsDone: 70\nwriteErrors: nobody counts them\n$/,
  );
  expect(deviceAsText({ ...ours, writeErrors: 3 })).toMatch(/\nwriteErrors: 3\n$/);
  const revived = { ...ours, record: { ...ours.record, countedSinceMs: 1_700_000_000_000 }, writeErrors: 0 };
  expect(deviceAsText(revived)).toMatch(/\nwriteErrors: 0\nwriteErrorsUnknownBefore: 2023-11-14T22:13:20.000Z\n$/);
  const { deadTimeoutSeconds: _, ...byIoctl } = ours.record;
  expect(deviceAsText({ ...ours, record: byIoctl })).toContain('\ndeadTimeoutSeconds: none\n');
});
