import type { Replies } from './replies.js';
import type { RequestInput } from './request-input.js';

/**
 * What a connection does when its client has been silent for a while: it gives its memory back. With `keepsMemory` it takes
 * its buffers now, and never gives any back: for the kernel, which writes when it has no memory to give.
 */
export function whenIdle(
  keepsMemory: true | undefined,
  input: RequestInput,
  replies: Replies,
  others: readonly { relax(): void }[],
): () => void {
  if (!keepsMemory) {
    return () => {
      input.relax();
      replies.relax();
      for (const other of others) other.relax();
    };
  }
  input.bytes.fill(0, input.end);
  replies.bytes.fill(0);
  return () => {};
}
