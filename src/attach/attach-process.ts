import { answerForDevice } from './answer-for-device.js';
import type { ImageAttachRequest } from './attach-request.js';
import { unlessStopped } from './hold.js';
import { attachImage } from './image.js';
import { revive } from './revive.js';
import { standBy } from './stand-by.js';
import type { Revival, StandBy, Succession } from './succession.js';
import { takeOver } from './take-over.js';

type ImageTask = ImageAttachRequest | Succession | Revival | StandBy;

// The process behind an attached image.
void answerForDevice(async (task: ImageTask, channel, context) => {
  switch (task.kind) {
    case 'succession':
      return takeOver(task, channel, context);
    case 'revival':
      return revive(task.device, context);
    case 'standby':
      return standBy(task, channel, context);
    default:
      return unlessStopped(() => attachImage(task, context), context);
  }
});
