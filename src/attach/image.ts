import { closeSync } from 'node:fs';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { socketPair } from '../kernel/fd-calls.js';
import { SECTOR_BYTES } from '../kernel/nbd-abi.js';
import { within } from '../kernel/within.js';
import { imageFlags, rulesOf } from '../server/exports.js';
import { type ServedConnection, startConnection } from '../server/workers.js';
import type { AttachContext } from './attach-context.js';
import type { ImageAttachRequest } from './attach-request.js';
import { type Attachment, bringUp } from './attachment.js';
import { AttachError } from './errors.js';

/** A worker in a call to a disk that does not answer cannot be ended; the rest of the undo does not wait for it. */
const WORKER_LIMIT_MS = 30_000;

/**
 * Attaches an image: a worker of ours serves it at one end of a socketpair, the kernel gets the other. Both ends are
 * ours, so nothing is negotiated and no time limit can drop a request.
 */
export async function attachImage(request: ImageAttachRequest, context: AttachContext): Promise<Attachment> {
  const { undo, onEvent } = context;
  const { imagePath, device, format, readOnly, snapshot, temporary, forceShare, cache, discard, detectZeroes, part } =
    request;
  // What the kernel may choose is free: nothing lies on it.
  const becomes = device === undefined ? {} : { becomes: device };
  const image = await undo.step(
    'open the image',
    () =>
      openImage(imagePath, {
        format,
        readOnly,
        snapshot,
        temporary,
        forceShare,
        cache,
        discard,
        detectZeroes,
        part,
        ...becomes,
      }),
    (opened) => opened.close(),
  );
  for (const text of image.notices) onEvent({ kind: 'notice', text });
  onEvent({ kind: 'negotiated', sizeBytes: image.sizeBytes });

  const { kernelEnd, connection } = await undo.step('start the worker', () => startServing(image), stopServing);
  const setup = {
    sizeBytes: image.sizeBytes,
    blockSizeBytes: SECTOR_BYTES,
    flags: imageFlags(image, true),
    requestTimeoutSeconds: 0,
    requestBytesMax: undefined,
    sockets: [kernelEnd],
    deadTimeoutSeconds: undefined,
    unattended: false,
  };
  const about = {
    kind: 'image',
    imagePath,
    format: image.formatName,
    readOnly: image.readOnly,
    sizeBytes: image.sizeBytes,
    temporary,
    snapshot,
    forMounts: request.forMounts,
  };
  return bringUp(request, setup, about, context, {
    serverEnd: connection.ended,
    writeErrors: connection.writeErrors,
  });
}

/** A worker at one end of a socket pair; the other is for the kernel. */
interface Serving {
  readonly kernelEnd: number;
  readonly connection: ServedConnection;
}

function startServing(image: OpenedImage): Serving {
  const [kernelEnd, socketFd] = socketPair();
  const rules = rulesOf(image, { flags: imageFlags(image, true), replyStyle: 'simple', statusContexts: 0 });
  const received = new Uint8Array(0);
  const connection = startConnection({
    socketFd,
    image: image.handle,
    rules,
    contexts: [],
    received,
    keepsMemory: true,
  });
  return { kernelEnd, connection };
}

async function stopServing({ kernelEnd, connection }: Serving): Promise<void> {
  connection.shutdown();
  const end = await within(connection.ended, WORKER_LIMIT_MS);
  closeSync(kernelEnd);
  if (end === 'late') throw new AttachError('time-limit', 'the worker still waits for the disk of the image');
  if (end.kind === 'failed') throw end.error;
}
