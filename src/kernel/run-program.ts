import { spawn } from 'node:child_process';
import { errnoText } from './errno.js';

/** How a program ended, or did not. */
export interface ProgramEnd {
  /** Its exit status; −1 if it was killed, could not be started, or had not ended at the time limit. */
  readonly status: number;
  /** What it wrote, up to a limit; of a program that did not run, why. */
  readonly stdout: string;
  readonly stderr: string;
  /** It was late: it may still run, for SIGKILL does not reach a process that waits for a device. */
  readonly isLate: boolean;
}

export interface RunOptions {
  /** After so long it is killed, and not waited for. */
  readonly limitMs: number;
  /** It is asked to end (SIGTERM) when this is aborted, and waited for. */
  readonly stop?: AbortSignal;
  /**
   * It stays in our process group, where ^C reaches it too. For what walks to a mount point that systemd has put autofs on:
   * the kernel keeps all but systemd's own group, to which the helper of a mount belongs, waiting for that very mount.
   */
  readonly inOurGroup?: boolean;
}

const textCharsMax = 65_536;

/** Runs a program to its end. Nothing is thrown: what went wrong is told by how it ended. */
export function runProgram(program: string, words: readonly string[], options: RunOptions): Promise<ProgramEnd> {
  const { limitMs, stop, inOurGroup = false } = options;
  // A session of its own: ^C is for the command, and must not end a flush.
  const child = spawn(program, words, { cwd: '/', detached: !inOurGroup, stdio: ['ignore', 'pipe', 'pipe'] });
  const texts = { stdout: '', stderr: '' };
  return new Promise((resolve) => {
    const onStop = () => void child.kill('SIGTERM');
    const settle = (end: ProgramEnd): void => {
      clearTimeout(timer);
      stop?.removeEventListener('abort', onStop);
      resolve(end);
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
      settle({ status: -1, ...texts, isLate: true });
    }, limitMs);
    stop?.addEventListener('abort', onStop, { once: true });
    child.on('error', (error: NodeJS.ErrnoException) => {
      const why = `cannot run ${program}: ${errnoText(-(error.errno ?? 0))}`;
      settle({ status: -1, stdout: '', stderr: why, isLate: false });
    });
    for (const stream of ['stdout', 'stderr'] as const) {
      // Without free descriptors there is no pipe, only the error.
      child[stream]?.setEncoding('utf8').on('data', (piece: string) => {
        texts[stream] = (texts[stream] + piece).slice(0, textCharsMax);
      });
    }
    child.on('close', (status) => settle({ status: status ?? -1, ...texts, isLate: false }));
  });
}

/** What a program complained of, in short. */
export function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
