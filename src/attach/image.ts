import { fstatSync } from 'node:fs';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { identityOf } from '../image/seen-files.js';
import { tellOfTrouble } from '../image/trouble.js';
import { SECTOR_BYTES } from '../kernel/nbd-abi.js';
import type { DeviceSetup, NbdDevice } from '../kernel/nbd-device.js';
import { imageFlags } from '../server/exports.js';
import type { AttachContext } from './attach-context.js';
import type { ImageAttachRequest } from './attach-request.js';
import { type Attachment, bringUp } from './attachment.js';
import type { ServedRecord } from './devices.js';
import { AttachError, noNetlink } from './errors.js';
import { handOverImage } from './hand-over.js';
import { ImageServer } from './image-server.js';
import { launchStandBy } from './launch-stand-by.js';
import { refuseForgetful } from './revive.js';

/** What the state file can hold of an image's files. */
const FILES_CHARS_MAX = 32_768;

/**
 * Attaches an image: a worker of ours serves it at one end of a socketpair, the kernel gets the other. Both ends are
 * ours, so nothing is negotiated and no time limit can drop a request.
 */
export async function attachImage(request: ImageAttachRequest, context: AttachContext): Promise<Attachment> {
  const { undo, onEvent } = context;
  const { imagePath, device, persist, deadTimeoutSeconds } = request;
  // What the kernel may choose is free: nothing lies on it.
  const becomes = device === undefined ? {} : { becomes: device };
  const image = await undo.step(
    'open the image',
    () => openImage(imagePath, { ...request, ...becomes }),
    (opened) => opened.close(),
  );
  if (deadTimeoutSeconds !== undefined) refuseForgetful(request, image.formatName);
  for (const text of image.notices) onEvent({ kind: 'notice', text });
  tellOfTrouble(imagePath, image, (text) => onEvent({ kind: 'notice', text }));
  onEvent({ kind: 'negotiated', sizeBytes: image.sizeBytes });

  const server = await undo.step(
    'start the worker',
    () => new ImageServer(image),
    (started) => started.stop(),
  );
  server.goOn();
  const settled = {
    sizeBytes: image.sizeBytes,
    blockSizeBytes: SECTOR_BYTES,
    flags: imageFlags(image, true),
    requestTimeoutSeconds: 0,
    requestBytesMax: undefined,
    deadTimeoutSeconds,
    unattended: false,
  };
  const served = recordOf(request, settled, image);
  if (persist && served === undefined)
    throw new AttachError('refused', '--persist: the paths of its files are too long');
  const { temporary, snapshot, forMounts } = request;
  const what = {
    kind: 'image',
    imagePath,
    format: image.formatName,
    readOnly: image.readOnly,
    temporary,
    snapshot,
    ...(forMounts && { forMounts }),
    ...(served && { served }),
  } as const;
  const setup: DeviceSetup = { ...settled, sockets: [server.ends.kernelEnd] };
  return bringUp(request, setup, what, context, {
    serverEnd: server.ended,
    image,
    handOver: handOverImage({ request, setup, image, server }),
    supervise: ({ link }: NbdDevice) => {
      if (deadTimeoutSeconds !== undefined && link === undefined) throw needsNetlink();
      return undefined;
    },
    startSecond: persist ? (name) => launchStandBy(name, request, server.ends.kernelEnd) : undefined,
    writeErrors: () => server.writeErrors(),
  });
}

/** What another process needs to go on with the image. */
function recordOf(
  request: ImageAttachRequest,
  setup: ServedRecord['setup'],
  image: OpenedImage,
): ServedRecord | undefined {
  const files = [...image.files].map(([path, fd]) => [path, identityOf(fstatSync(fd))] as const);
  return JSON.stringify(files).length > FILES_CHARS_MAX ? undefined : { request, setup, files };
}

function needsNetlink(): AttachError {
  return new AttachError(
    'refused',
    `--persist and --dead-timeout need ${noNetlink}: by ioctl a device ends with its process`,
  );
}
