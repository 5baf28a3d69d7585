import { KernelError } from './errors.js';

/** The kernel numbers nbd devices by a u32's positive half; nobody has a device of ten digits. */
const digitsMax = 9;

/**
 * The kernel's name of an nbd device that a user named: 'nbd0' for 'nbd0' and '/dev/nbd0'.
 *
 * @throws KernelError 'no-device' for anything else, partitions included
 */
export function parseDeviceName(text: string): string {
  const name = text.startsWith('/dev/') ? text.slice('/dev/'.length) : text;
  if (/^nbd(0|[1-9][0-9]*)$/.test(name) && name.length <= 'nbd'.length + digitsMax) return name;
  const whole = /^(nbd[0-9]+)p[0-9]+$/.exec(name)?.[1];
  if (whole !== undefined) {
    throw new KernelError('no-device', `${text} is a partition: name the whole device, /dev/${whole}`);
  }
  throw new KernelError('no-device', `'${text}' is no nbd device: they are named /dev/nbd0, /dev/nbd1 and so on`);
}

/** The name of the device with a number. */
export function deviceName(index: number): string {
  return `nbd${index}`;
}

/** The device's number: 12 for 'nbd12'. */
export function deviceIndex(name: string): number {
  return Number(name.slice('nbd'.length));
}
