import type { ServingChoice } from '../attach/attach-request.js';
import type { DeviceChoice, KernelApi } from '../kernel/nbd-device.js';
import { UsageError } from './errors.js';
import type { OptionTable, OptionValues } from './option-table.js';
import { identifier, kernelApi } from './option-values.js';

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

/** What only netlink can do with a device, for every program that attaches. */
export function netlinkOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    identifier: {
      short: 'i',
      value: '<ID>',
      read: identifier,
      modes,
      help: 'What the kernel shows as "backend" of the device in /sys, in place of a mark of ours. By netlink only.',
    },
    'destroy-on-disconnect': {
      modes,
      help: 'Have the kernel take the device away, number and node, when it is detached. By netlink only.',
    },
    'disconnect-on-close': {
      modes,
      help: 'Detach the device when the last that uses it has closed it: umount detaches. With "tsnbd run" that begins when COMMAND has ended; else once a file system, swap or another device uses it, for half a second at least, since whoever looks at a new device, as udev does, closes it again. By netlink only.',
    },
  } satisfies OptionTable<Mode>;
}

/** What of them was given; `since` is when the last user's close is to end the device. */
export function netlinkChoice(
  values: OptionValues<ReturnType<typeof netlinkOptions>>,
  kernelApi: KernelApi,
  since: ServingChoice['disconnectOnClose'] = 'once used',
) {
  const longs = ['identifier', 'destroy-on-disconnect', 'disconnect-on-close'] as const;
  for (const long of longs) {
    if (kernelApi === 'ioctl' && long in values) throw new UsageError(`option --${long}: it has no effect by ioctl`);
  }
  return {
    identifier: values.identifier,
    destroyOnDisconnect: values['destroy-on-disconnect'],
    disconnectOnClose: values['disconnect-on-close'] && since,
  };
}

/** Refuses what no kernel can do. */
export function checkChoice({ device, kernelApi }: DeviceChoice): void {
  if (device === undefined && kernelApi === 'ioctl') {
    throw new UsageError('DEV: with ioctl the kernel does not choose a device; name one instead of auto');
  }
}
