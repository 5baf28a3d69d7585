import { answerForDevice } from './answer-for-device.js';
import type { RemoteAttachRequest } from './attach-request.js';
import { unlessStopped } from './hold.js';
import { attachRemote } from './remote.js';

// The process behind an attached remote export. It reads no images, and so none of their code.
void answerForDevice((task: RemoteAttachRequest, _, context) =>
  unlessStopped(() => attachRemote(task, context), context),
);
