import type { AttachRequest } from './attach-request.js';
import type { AttachmentEnd } from './attachment.js';
import { type HoldOptions, hold, unlessStopped } from './hold.js';
import { attachImage } from './image.js';
import { attachRemote } from './remote.js';

/** Attaches, whatever it is, and holds the device until it ends. */
export function attachAndHold(request: AttachRequest, options: HoldOptions): Promise<AttachmentEnd> {
  return hold(
    request,
    (context) =>
      unlessStopped(
        () => (request.kind === 'image' ? attachImage(request, context) : attachRemote(request, context)),
        context,
      ),
    options,
  );
}
