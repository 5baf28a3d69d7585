import type { DeviceUser } from '../kernel/proc.js';

/** Who keeps a device busy, as one phrase: '/dev/nbd0p1 is mounted on /mnt/test1, dm-0 holds /dev/nbd0p2'. */
export function describeUsers(users: readonly DeviceUser[]): string {
  return users.map(describeUser).join(', ');
}

function describeUser(user: DeviceUser): string {
  switch (user.kind) {
    case 'mount':
      return `/dev/${user.device} is mounted on ${user.mountPoint}`;
    case 'swap':
      return `/dev/${user.device} is swap space`;
    case 'holder':
      return `${user.holder} holds /dev/${user.device}`;
  }
}
