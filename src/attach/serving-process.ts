import { messageOf } from '../base/message-of.js';
import { becomeProgram } from '../kernel/exec.js';
import { becomeIoFlusher, ceaseToBeIoFlusher, isIoFlusher, lockMemory, stayInMemory } from '../kernel/short-memory.js';
import type { AttachRequest } from './attach-request.js';
import { AttachError } from './errors.js';

/**
 * What the heap of each thread may grow to, in MiB, where all of it stays in memory: far above what is needed; image tables
 * and buffers are no part of it. Others do without: Node behind any option of V8 compiles its own modules anew, in each thread,
 * and takes half as long again to start.
 */
const LOCKED_NODE_OPTIONS = ['--max-old-space-size=256', '--max-semi-space-size=4'];

/** The options of Node that the process behind a device is to be started with. */
export function servingNodeOptions(request: AttachRequest): readonly string[] {
  return request.locksMemory ? LOCKED_NODE_OPTIONS : [];
}

/**
 * To be called on the thread that starts the process behind a device, just before: it inherits what keeps it able to work
 * while memory is short.
 */
export function prepareServing(): void {
  becomeIoFlusher(); // where that fails the process tells it
}

/** To be called when the process is started: the programs that this one starts are no part of a device. */
export function donePreparing(): void {
  ceaseToBeIoFlusher();
}

/** To be called in a command that is to be that process itself: it starts anew, unless it was started so or need not be. */
export function startAnewToServe(request: AttachRequest): void {
  const options = servingNodeOptions(request);
  const hasOptions = options.every((option) => process.execArgv.includes(option));
  if (hasOptions && !startsAsIoFlusher()) return;
  prepareServing();
  startAnew(options);
}

/** To be called in a service, whose parent is process 1, from which it inherits none of that: it starts itself anew. */
export function prepareService(): void {
  if (startsAsIoFlusher()) startAnew([]);
}

/** Whether a start anew would make all of this process's threads what they are not yet. */
function startsAsIoFlusher(): boolean {
  return !isIoFlusher() && becomeIoFlusher();
}

function startAnew(nodeOptions: readonly string[]): never {
  becomeProgram(process.execPath, [...process.execArgv, ...nodeOptions, ...process.argv.slice(1)]);
}

/**
 * To be called in that process before it attaches: it stays alive and in memory while others do not. All of its memory is
 * locked where swap depends on it, and of one that watches over a connection, which is little more than Node. Answers what the
 * user should know where the system does not allow that.
 *
 * @throws AttachError 'refused' when it cannot lock its memory, and is to
 */
export function endureShortMemory(request: AttachRequest): string | undefined {
  try {
    if (!isIoFlusher()) throw new Error('it may not set PR_SET_IO_FLUSHER');
    stayInMemory();
    if (request.locksMemory || watchesOver(request)) lockMemory();
    return undefined;
  } catch (error) {
    const why = messageOf(error);
    if (request.locksMemory) {
      throw new AttachError('refused', `a device for swap needs a process that stays in memory: ${why}`, error);
    }
    return `when memory is short the process behind the device may hang or be killed: ${why}`;
  }
}

function watchesOver(request: AttachRequest): boolean {
  return request.kind === 'remote' && request.persist !== 'no';
}
