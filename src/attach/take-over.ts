import type { ReadyChannel } from '../daemon/ready.js';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { tellOfTrouble } from '../image/trouble.js';
import type { DeviceSetup } from '../kernel/nbd-device.js';
import { adoptDevice } from '../kernel/nbd-netlink.js';
import { imageFlags } from '../server/exports.js';
import { SpareWorker } from '../server/spare-workers.js';
import type { AttachContext } from './attach-context.js';
import { type Attachment, answerFor } from './attachment.js';
import { AttachError } from './errors.js';
import { takeGiven } from './given-fds.js';
import { handOverImage } from './hand-over.js';
import { ImageServer } from './image-server.js';
import { dropNodes } from './nodes.js';
import { type GoOn, type Succession, WAITING } from './succession.js';

/**
 * Goes on with an image that another process serves (hand-over). All that takes time is done before that one halts; from
 * `GoOn` on the device waits for this one, also if the other is killed meanwhile.
 */
export async function takeOver(
  { device, request, about, files, ...succession }: Succession,
  channel: ReadyChannel,
  context: AttachContext,
): Promise<Attachment> {
  const { undo, onEvent } = context;
  const [serverEnd = -1, kernelEnd = -1, ...given] = takeGiven(2 + files.length);
  const setup: DeviceSetup = { ...succession.setup, sockets: [kernelEnd] };
  let isOurs = false;
  const nbd = await undo.step(
    'adopt the device',
    () => adoptDevice(device, setup, about.backend ?? '', request.destroyOnDisconnect),
    async (adopted) => {
      if (!isOurs) return adopted.leave();
      await adopted.stop();
      dropNodes(device, about);
    },
  );
  const spare = new SpareWorker();
  channel.event(WAITING);
  const { writeErrors } = await toldToGoOn(channel);

  const image = await undo.step(
    'open the image',
    () =>
      openImage(request.imagePath, {
        ...request,
        becomes: device,
        given: new Map(files.map((path, index) => [path, given[index] ?? -1])),
      }),
    (opened) => opened.close(),
  );
  requireUnchanged(image, setup);
  tellOfTrouble(request.imagePath, image, (text) => onEvent({ kind: 'notice', text }));
  const server = await undo.step(
    'start the worker',
    () => new ImageServer(image, { kernelEnd, serverEnd }, writeErrors),
    (started) => started.stop(),
  );
  const parts = {
    serverEnd: server.ended,
    image,
    handOver: handOverImage({ request, setup, image, server }),
    writeErrors: () => server.writeErrors(),
  };
  return answerFor(nbd, about, setup, context, parts, async () => {
    isOurs = true;
    await channel.ready(); // who hears that will never serve it again
    server.goOn(spare.take());
  });
}

async function toldToGoOn({ next, abandoned }: ReadyChannel): Promise<GoOn> {
  const left = new Promise((_, reject) => {
    if (abandoned.aborted) reject(abandoned.reason);
    abandoned.addEventListener('abort', () => reject(abandoned.reason), { once: true });
  });
  const told = (await Promise.race([next, left])) as GoOn | string;
  if (typeof told === 'string') throw new AttachError('system', told);
  return told;
}

/** The kernel keeps what it was told of the device. */
function requireUnchanged(image: OpenedImage, { sizeBytes, flags }: DeviceSetup): void {
  if (image.sizeBytes >= sizeBytes && imageFlags(image, true) === flags) return;
  throw new AttachError('refused', 'the image is not what it was when it was attached');
}
