import { basename } from 'node:path';
import type { OnAttachEvent } from '../attach/attach-event.js';
import { messageOf } from '../base/message-of.js';
import { endWithin } from '../daemon/exit.js';
import { messageInWords, type OnHandshakeMessage } from '../protocol/handshake-message.js';
import { EXIT_STATUSES, exitReasonOf, exitStatus } from './exit-status.js';
import type { Answer, Verbosity } from './parse.js';

/** What a process that has nothing left to do gets before it is ended. */
const END_LIMIT_MS = 10_000;

/** Runs a program to its end: what `act` throws becomes one line on stderr, with `debug` its stack, and a status. */
export async function run(program: string, debug: boolean, act: () => Promise<number>): Promise<void> {
  // A reader of our output that has gone must not end a process that serves a device.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  try {
    process.exitCode = await act();
  } catch (error) {
    process.stderr.write(`${program}: ${messageOf(error)}\n`);
    if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    process.exitCode = exitStatus(exitReasonOf(error), calledAs());
  }
  await flushed(process.stdout);
  endWithin(END_LIMIT_MS);
}

/** A reader may take its time, as a pager does; one that has gone is not waited for. */
export function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.write('', () => resolve());
  });
}

/** Says what needs no work: help, version, or what is wrong with the command line. Answers the exit status. */
export function tellAnswer(program: string, answer: Answer): number {
  if (answer.kind === 'usage-error') {
    process.stderr.write(`${program}: ${answer.message}\n`);
    return answer.status ?? exitStatus('usage', calledAs());
  }
  process.stdout.write(`${answer.text.trimEnd()}\n`);
  return EXIT_STATUSES.done.status;
}

/** The name the user called the program by: scripts made for nbd-client may do so by a link. */
export function calledAs(): string {
  return basename(process.argv[1] ?? '');
}

/** Tells what the user should know although all goes on. */
export function tellNotice(program: string): (text: string) => void {
  return (text) => void process.stderr.write(`${program}: ${text}\n`);
}

/** Tells each message of a negotiation, a line on stderr, if the user asked for it. */
export function tellMessages(program: string, { debug }: Verbosity): OnHandshakeMessage | undefined {
  return debug ? (message) => tellNotice(program)(messageInWords(message, 'client')) : undefined;
}

/** Tells an attach's steps, messages and notices, each a line on stderr; but for notices only if the user asked for them. */
export function tellSteps(program: string, verbosity: Verbosity): OnAttachEvent {
  return (event) => {
    if (event.kind === 'notice') tellNotice(program)(event.text);
    if (event.kind === 'message' && verbosity.debug) tellNotice(program)(messageInWords(event.message, 'client'));
    if (event.kind === 'step' && verbosity.verbose) process.stderr.write(`${program}: ${event.step}\n`);
  };
}
