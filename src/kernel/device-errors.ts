import { constants } from 'node:os';
import { errnoText } from './errno.js';
import { KernelError, threadError } from './errors.js';
import { NBD_SET_BLKSIZE, NBD_SET_SOCK, PAGE_BYTES } from './nbd-abi.js';
import type { DeviceSetup } from './nbd-device.js';
import { describeReply, type NetlinkReply } from './netlink-socket.js';

const { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENXIO, EPERM, ETIMEDOUT } = constants.errno;

/** Why a device node cannot be opened; `cause` is what node:fs threw. */
export function openError(name: string, cause: unknown): KernelError {
  const errno = -((cause as NodeJS.ErrnoException).errno ?? 0);
  switch (errno) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return new KernelError('no-device', `there is no device behind /dev/${name}: ${errnoText(errno)}`, { cause });
    case EBUSY:
      return busy(name, 'another program has it for itself');
    case EPERM:
    case EACCES:
      return notRoot(name, errno);
    default:
      return new KernelError('system', `cannot open /dev/${name}: ${errnoText(errno)}`, { cause });
  }
}

/** Why the kernel refused an ioctl of the set-up. */
export function setupError(name: string, request: number, value: number, errno: number): KernelError {
  switch (errno) {
    case EPERM:
    case EACCES:
      return notRoot(name, errno);
    case EBUSY:
      return busy(name, 'another program is setting it up');
    case EINVAL:
      if (request === NBD_SET_BLKSIZE) {
        return blockSizeError(name, value);
      }
      // A device that netlink set up in the meantime, or a socket that is neither TCP nor unix.
      if (request === NBD_SET_SOCK) {
        return new KernelError('refused', `the kernel takes no such socket for /dev/${name}, or has the device in use`);
      }
  }
  return new KernelError('system', `the kernel refuses to set /dev/${name} up: ${errnoText(errno)}`);
}

/** Why the kernel refused to connect a device by netlink; without a name it was to choose one. */
export function connectError(
  name: string | undefined,
  { blockSizeBytes }: DeviceSetup,
  reply: NetlinkReply,
): KernelError {
  const { errno, text } = reply;
  if (name !== undefined) {
    if (errno === EPERM || errno === EACCES) return notRoot(name, errno);
    if (errno === EBUSY) return busy(name, 'another program has it open, or connected it just now');
    if (errno === EINVAL && text === '' && blockSizeBytes > PAGE_BYTES) return blockSizeError(name, blockSizeBytes);
  }
  const device = name === undefined ? 'a device' : `/dev/${name}`;
  return new KernelError('refused', `the kernel refuses to connect ${device}: ${describeReply(reply)}`);
}

/** Why a device ended before it was up; `result` is what NBD_DO_IT answered, `cause` why it could not be called. */
export function startError(name: string, result: number, cause: unknown): KernelError {
  if (cause !== undefined) return threadError(`the thread that holds /dev/${name}`, cause);
  switch (-result) {
    case 0:
      return new KernelError('system', `the server closed the connection while /dev/${name} was started`);
    case EBUSY:
      return busy(name, 'a program still has it open from its last use');
    case ETIMEDOUT:
      return new KernelError('time-limit', `the server did not answer in time while /dev/${name} was started`);
    default:
      return new KernelError('system', `the kernel does not start /dev/${name}: ${errnoText(-result)}`);
  }
}

function blockSizeError(name: string, blockSizeBytes: number): KernelError {
  return new KernelError(
    'refused',
    `the kernel refuses blocks of ${blockSizeBytes} bytes on /dev/${name}: it takes a power of two from 512 to its page size`,
  );
}

function busy(name: string, why: string): KernelError {
  return new KernelError('busy', `/dev/${name} is busy: ${why}`);
}

function notRoot(name: string, errno: number): KernelError {
  return new KernelError('not-root', `only root can attach /dev/${name} (${errnoText(errno)}); try sudo`);
}
