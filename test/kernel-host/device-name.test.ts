import { expect, it } from 'vitest';
import { deviceIndex, parseDeviceName } from '#tsnbd/kernel/device-name.js';
import { KernelError } from '#tsnbd/kernel/errors.js';

it.each([
  ['nbd0', 'nbd0'],
  ['/dev/nbd0', 'nbd0'],
  ['/dev/nbd15', 'nbd15'],
  ['nbd123456789', 'nbd123456789'],
])('takes %s', (text, name) => {
  expect(parseDeviceName(text)).toBe(name);
});

it.each([
  '',
  'nbd',
  'nbd00',
  'nbd01',
  'nbd-1',
  'sda',
  '/dev/sda',
  '/dev/nbd/0',
  'dev/nbd0',
  '/dev//nbd0',
  '/dev/../dev/nbd0',
  'nbd0\n',
  ' nbd0',
  'nbd0/',
  '/dev/disk/nbd0',
  'nbd1234567890',
])('refuses %j', (text) => {
  expect(() => parseDeviceName(text)).toThrow(KernelError);
  expect(() => parseDeviceName(text)).toThrow('is no nbd device');
});

it('names the whole device to whoever gives a partition', () => {
  expect(() => parseDeviceName('/dev/nbd0p1')).toThrow('/dev/nbd0p1 is a partition: name the whole device, /dev/nbd0');
});

it('knows the number of a device', () => {
  expect(deviceIndex('nbd12')).toBe(12);
});
