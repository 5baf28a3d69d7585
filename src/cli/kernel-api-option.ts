import type { DeviceChoice } from '../kernel/nbd-device.js';
import { UsageError } from './errors.js';
import type { OptionTable } from './option-table.js';
import { kernelApi } from './option-values.js';

/** By which of the kernel's interfaces a device is attached, for every program that attaches. */
export function kernelApiOption<Mode extends string>(modes: readonly Mode[]) {
  return {
    'kernel-api': {
      value: '<API>',
      read: kernelApi,
      modes,
      help: 'Have the kernel set the device up by netlink or by ioctl; auto, the default, is netlink where there is one for nbd: in the first network namespace, and on newer kernels in every one.',
    },
  } satisfies OptionTable<Mode>;
}

/** Refuses what no kernel can do. */
export function checkChoice({ device, kernelApi }: DeviceChoice): void {
  if (device === undefined && kernelApi === 'ioctl') {
    throw new UsageError('DEV: with ioctl the kernel does not choose a device; name one instead of auto');
  }
}
