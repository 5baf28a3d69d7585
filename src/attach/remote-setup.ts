import { PAGE_BYTES, SECTOR_BYTES } from '../kernel/nbd-abi.js';
import type { DeviceSetup } from '../kernel/nbd-device.js';
import {
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from '../protocol/constants.js';
import type { ExportInfo } from '../protocol/export-info.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { AttachError } from './errors.js';

/** What the kernel asks of a server, or leaves, by its flags; a newer server may have more of the others. */
const FLAGS_OF_THE_KERNEL =
  NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
/** The kernel's own longest read and write; a device is not told that its server takes less than at first. */
const REQUEST_BYTES_MAX = 131_072;

/** How the kernel is to see the export that a server described, and what the user should know about it. */
export interface RemoteSetup {
  readonly setup: Omit<DeviceSetup, 'sockets' | 'deadTimeoutSeconds' | 'unattended'>;
  readonly notices: readonly string[];
}

/**
 * The kernel sends nothing smaller than the device's block, so that is the server's minimum or more; a size that is no
 * multiple of it is rounded down, because the kernel could not reach the rest (kernel-facts: 512 unless the server says
 * otherwise, above the page size refused).
 */
export function chooseRemoteSetup(request: RemoteAttachRequest, found: ExportInfo): RemoteSetup {
  const minimum = Math.max(SECTOR_BYTES, found.blockSizes?.minimum ?? 1);
  if (minimum > PAGE_BYTES) {
    throw new AttachError(
      'refused',
      `the server asks for blocks of ${minimum} bytes; the kernel's nbd driver has none above ${PAGE_BYTES}`,
    );
  }
  const blockSizeBytes = request.blockSizeBytes ?? minimum;
  if (blockSizeBytes < minimum) {
    throw new AttachError(
      'refused',
      `the server takes no blocks smaller than ${minimum} bytes; ${blockSizeBytes} were asked for`,
    );
  }
  const requestBytesMax = found.blockSizes?.maximumPayload;
  if (requestBytesMax !== undefined && requestBytesMax < PAGE_BYTES) {
    throw new AttachError(
      'refused',
      `the server takes at most ${requestBytesMax} bytes at once; the kernel sends up to a page of ${PAGE_BYTES}`,
    );
  }

  const wholeBytes = chosenSize(request, found, blockSizeBytes);
  const beyondBytes = wholeBytes % blockSizeBytes;
  const sizeBytes = wholeBytes - beyondBytes;
  if (sizeBytes === 0) {
    throw new AttachError(
      'refused',
      `the export has ${found.sizeBytes} bytes, less than one block of ${blockSizeBytes}`,
    );
  }
  const notices =
    beyondBytes === 0
      ? []
      : [
          `the export has ${found.sizeBytes} bytes, no multiple of ${blockSizeBytes}: the last ${beyondBytes} cannot be reached`,
        ];
  return {
    setup: {
      sizeBytes,
      blockSizeBytes,
      flags: found.flags | (request.readOnly ? NBD_FLAG_READ_ONLY : 0),
      requestTimeoutSeconds: request.requestTimeoutSeconds,
      requestBytesMax,
    },
    notices,
  };
}

/** The size that the user wants, where the export has it. */
function chosenSize({ sizeBytes }: RemoteAttachRequest, found: ExportInfo, blockSizeBytes: number): number {
  if (sizeBytes === undefined) return found.sizeBytes;
  if (sizeBytes > found.sizeBytes) {
    throw new AttachError('refused', `the export has ${found.sizeBytes} bytes; ${sizeBytes} were asked for`);
  }
  if (sizeBytes % blockSizeBytes === 0) return sizeBytes;
  throw new AttachError('refused', `a device of ${sizeBytes} bytes does not end with a block of ${blockSizeBytes}`);
}

/** What is known of an export whose server does not say a word: its size, by the user. */
export function untoldExport({ sizeBytes }: RemoteAttachRequest): ExportInfo {
  if (sizeBytes === undefined) throw new AttachError('refused', 'without a negotiation the size has to be given');
  return { sizeBytes, flags: NBD_FLAG_HAS_FLAGS };
}

/** The same, of which all is wanted: to hold the export against a device that has its size already. */
export function inFull(request: RemoteAttachRequest): RemoteAttachRequest {
  return { ...request, sizeBytes: undefined };
}

/**
 * The device keeps its size and its flags, so another connection must be to an export that has the same: what was written
 * to one disk must not go on on another. One that has grown keeps what it had.
 *
 * @throws AttachError 'refused'
 */
export function requireUnchanged(device: RemoteSetup['setup'], found: RemoteSetup['setup']): void {
  const changed = (what: string) =>
    new AttachError('refused', `the export has changed, so it is not attached: ${what}`);
  if (found.sizeBytes < device.sizeBytes) {
    throw changed(`it has ${found.sizeBytes} bytes, the device ${device.sizeBytes}`);
  }
  const flags = (of: RemoteSetup['setup']) => of.flags & FLAGS_OF_THE_KERNEL;
  if (flags(found) !== flags(device)) {
    throw changed(`its flags are 0x${found.flags.toString(16)}, and were 0x${device.flags.toString(16)}`);
  }
  const longest = (of: RemoteSetup['setup']) => Math.min(of.requestBytesMax ?? REQUEST_BYTES_MAX, REQUEST_BYTES_MAX);
  if (longest(found) < longest(device)) {
    throw changed(`it takes at most ${longest(found)} bytes at once, and took ${longest(device)}`);
  }
}
