import { messageOf } from '../base/message-of.js';
import { launch } from '../daemon/launch.js';
import type { OpenedImage } from '../image/open-image.js';
import type { DeviceSetup } from '../kernel/nbd-device.js';
import type { ImageAttachRequest } from './attach-request.js';
import type { DeviceRecord } from './devices.js';
import type { ImageServer } from './image-server.js';
import { servingNodeOptions } from './serving-process.js';
import { type GoOn, type Program, type Succession, WAITING } from './succession.js';

/** A disk that has not answered a request for so long keeps the process that waits for it. */
const HALT_LIMIT_MS = 30_000;
/** The start of a process, that, and opening an image, with room to spare. */
const SUCCESSION_LIMIT_MS = 60_000;

/** An attached image, as its process serves it. */
export interface ServedImage {
  readonly request: ImageAttachRequest;
  readonly setup: DeviceSetup;
  readonly image: OpenedImage;
  readonly server: ImageServer;
}

/** Has another process go on with a device: answers its number. Where it throws, this one goes on. */
export type HandOver = (device: string, about: DeviceRecord, program: Program) => Promise<number>;

/**
 * Hands an image that is served over to a process of `program`: it is started while requests are still done, then this one
 * halts between two requests, and that one goes on, with the same open files, so that their locks are never let go. Only
 * one of them serves at a time: this one goes on again only when the other is gone.
 */
export function handOverImage({ request, setup, image, server }: ServedImage): HandOver {
  return async (device, about, { execPath, entry }) => {
    const { kernelEnd, serverEnd } = server.ends;
    const { sockets: _, ...rest } = setup;
    const files = [...image.files];
    const succession: Succession = {
      kind: 'succession',
      device,
      request,
      setup: rest,
      about,
      files: files.map(([path]) => path),
    };
    const fds = [serverEnd, kernelEnd, ...files.map(([, fd]) => fd)];
    let failure: unknown;
    let hasHalted = false;
    let isOver = false;
    const onEvent = async (event: unknown, tell: (message: unknown) => void) => {
      if ((event as Partial<typeof WAITING>).kind !== WAITING.kind) return;
      try {
        await server.halt(HALT_LIMIT_MS);
        if (isOver) return server.goOn(); // its time has passed, and the next process is gone
        hasHalted = true;
        tell({ kind: 'go on', writeErrors: server.writeErrors() } satisfies GoOn);
      } catch (error) {
        failure = error;
        tell(messageOf(error));
      }
    };
    // What keeps this process able to work while memory is short, its children inherit.
    const nodeOptions = servingNodeOptions(request);
    const options = { limitMs: SUCCESSION_LIMIT_MS, fds, execPath, nodeOptions, waitsForEnd: true };
    try {
      const tellIt = (event: unknown, tell: (message: unknown) => void) => void onEvent(event, tell);
      return await launch(new URL(entry), succession, tellIt, options);
    } catch (error) {
      isOver = true;
      if (hasHalted) server.goOn();
      throw failure ?? error;
    }
  };
}
