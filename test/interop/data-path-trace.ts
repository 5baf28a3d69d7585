import { readFileSync } from 'node:fs';

/** How a server reads what clients send: it does so often. */
export const READ_CALLS = 'read';
/** All else that its ways are seen by. */
export const WAY_CALLS = 'fcntl,splice,io_uring_enter,fadvise64,openat';

/**
 * What strace has to be told for a server whose ways are read here, into the file `path`. Calls that are not traced take no longer
 * than without it, those that read and write the image among them.
 */
export const tracingInto = (path: string, calls: string): readonly string[] => [
  ...['--seccomp-bpf', '-y', '-s', '0', '-o', path],
  ...['-e', `trace=${calls}`, '-e', 'signal=none'],
];

/** One step of a worker, on the socket of its connection (its inode) where it has to do with one. */
export interface Step {
  readonly kind: /** The socket does not block from here on: the worker waits awake, or looks for more behind a slow read. */
    | 'awake'
    /** It blocks again. */
    | 'asleep'
    /** Requests came by a read that blocks. */
    | 'received'
    /** Data went to the socket by reference. */
    | 'spliced'
    /** Reads, writes or syncs were handed over to be done beside each other. */
    | 'begun'
    /** Reads were announced to the page cache. */
    | 'announced'
    /** A file was opened to go past the page cache. */
    | 'direct';
  readonly socket: string;
}

/** The steps of all workers, in their order, from what strace wrote into `path`. */
export function stepsIn(path: string): readonly Step[] {
  const steps: Step[] = [];
  /** Whether the sockets that workers were given block. */
  const blocks = new Map<string, boolean>();
  for (const { name, given, result } of callsIn(readFileSync(path, 'latin1'))) {
    const socket = (name === 'splice' ? /, \d+<socket:\[(\d+)\]>/ : /^\d+<socket:\[(\d+)\]>/).exec(given)?.[1] ?? '';
    const add = (kind: Step['kind']) => steps.push({ kind, socket });
    if (name === 'splice' && result > 0) add('spliced');
    if (name === 'io_uring_enter' && result > 0) add('begun');
    if (name === 'fadvise64' && given.includes('POSIX_FADV_WILLNEED')) add('announced');
    if (name === 'openat' && given.includes('O_DIRECT')) add('direct');
    if (name === 'read' && result > 0 && blocks.get(socket) === true) add('received');
    if (name !== 'fcntl' || socket === '' || !given.includes('F_SETFL')) continue;
    const isBlocking = !given.includes('O_NONBLOCK');
    // The first is the main thread's, which gives it to a worker.
    if (blocks.has(socket)) add(isBlocking ? 'asleep' : 'awake');
    blocks.set(socket, isBlocking);
  }
  return steps;
}

interface Call {
  readonly name: string;
  readonly given: string;
  readonly result: number;
}

/** A call that another thread's interrupts is in two lines: it counts where it ends. */
function* callsIn(trace: string): Generator<Call> {
  const begun = new Map<string, string>();
  for (const line of trace.split('\n')) {
    const [, thread = '', text = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (text.endsWith(' <unfinished ...>')) {
      begun.set(thread, text.slice(0, -' <unfinished ...>'.length));
      continue;
    }
    const rest = /^<\.\.\. \w+ resumed>(.*)$/.exec(text)?.[1];
    const whole = rest === undefined ? text : `${begun.get(thread) ?? ''}${rest}`;
    const [, name, given = '', result] = /^(\w+)\((.*)\) += (-?\d+)/.exec(whole) ?? [];
    if (name !== undefined) yield { name, given, result: Number(result) };
  }
}
