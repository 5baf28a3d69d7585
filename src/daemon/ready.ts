import { rmSync } from 'node:fs';
import { connect, Socket } from 'node:net';
import { JsonLines, jsonLine } from './json-lines.js';
import { CHANNEL_FD, type ChannelMessage } from './launch.js';

/** The launched process's side of the channel to the command that waits for it. */
export interface ReadyChannel {
  readonly task: Promise<unknown>;
  /** What it is told next, behind the task. */
  readonly next: Promise<unknown>;
  /** Aborted when the waiting command goes away, or asks for the end, before `ready` or `failed` was said. */
  readonly abandoned: AbortSignal;
  /** Until `ready` or `failed` is said, or the command goes away. */
  isListening(): boolean;
  event(event: unknown): void;
  /** The command may return; nothing can be said afterwards. */
  ready(): Promise<void>;
  /** The command throws this error, under the code it has here. */
  failed(error: unknown): Promise<void>;
}

/** Whether this process was started by launchService. */
export function isService(): boolean {
  return process.argv[2] !== undefined;
}

/** It was inherited, or has the path that the process was started with (launch-service.ts). */
export function openReadyChannel(): ReadyChannel {
  const path = process.argv[2];
  // A command that asks for the end waits for the answer.
  const socket = path === undefined ? new Socket({ fd: CHANNEL_FD }) : connect({ path, allowHalfOpen: true });
  const abandoned = new AbortController();
  let said = false;
  let onNext: (message: unknown) => void = () => {};
  const next = new Promise<unknown>((resolve) => {
    onNext = resolve;
  });
  const task = new Promise<unknown>((resolve) => {
    let hears = resolve;
    const lines = new JsonLines((message) => {
      hears(message);
      hears = onNext;
    });
    socket.on('data', (bytes) => {
      if (!lines.receive(bytes)) socket.destroy();
    });
  });
  socket.on('error', () => {});
  // It has done its work: a command that is killed does not remove it.
  if (path !== undefined) socket.once('connect', () => rmSync(path, { force: true }));
  const abandon = () => {
    if (!said) abandoned.abort(new Error('the command that waited was ended'));
  };
  socket.on('end', abandon);
  socket.on('close', abandon);

  const say = (message: ChannelMessage) => socket.write(jsonLine(message));
  const lastWord = (message: ChannelMessage) => {
    said = true;
    if (socket.destroyed) return Promise.resolve(); // nobody waits any more
    return new Promise<void>((resolve) => {
      socket.on('close', () => resolve());
      socket.end(jsonLine(message), () => socket.destroy());
    });
  };
  return {
    task,
    next,
    abandoned: abandoned.signal,
    isListening: () => !said && !socket.destroyed,
    event: (event) => void say({ kind: 'event', event }),
    ready: () => lastWord({ kind: 'ready' }),
    failed: (error) => lastWord(failure(error)),
  };
}

function failure(error: unknown): ChannelMessage {
  const { code = 'system', message, stack } = error as Error & { code?: string };
  return { kind: 'failed', code, message, ...(stack === undefined ? {} : { stack }) };
}
