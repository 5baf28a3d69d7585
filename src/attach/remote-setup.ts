import { PAGE_BYTES, SECTOR_BYTES } from '../kernel/nbd-abi.js';
import type { DeviceSetup } from '../kernel/nbd-device.js';
import type { ExportInfo } from '../protocol/export-info.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { AttachError } from './errors.js';

/** How the kernel is to see the export that a server described, and what the user should know about it. */
export interface RemoteSetup {
  readonly setup: Omit<DeviceSetup, 'sockets'>;
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

  const beyondBytes = found.sizeBytes % blockSizeBytes;
  const sizeBytes = found.sizeBytes - beyondBytes;
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
      flags: found.flags,
      requestTimeoutSeconds: request.requestTimeoutSeconds,
      requestBytesMax,
    },
    notices,
  };
}
