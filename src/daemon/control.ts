import { chmodSync, renameSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { DaemonError } from './errors.js';
import { JsonLines, jsonLine } from './json-lines.js';
import { makeRunFolder, runFile } from './run-folder.js';

const CONTROL_CLIENTS_MAX = 16;
/** A client that has said nothing for so long is dropped. */
const CONTROL_IDLE_MS = 60_000;

/** One question a line, one answer a line; an answer has `ok`. */
export interface ControlAnswer {
  readonly ok: boolean;
  readonly [field: string]: unknown;
}

/** What is said to a client, and what is to be done when it has been told. */
export interface Said {
  readonly answer: ControlAnswer;
  readonly afterwards?: () => void;
}

export interface ControlSocket {
  /** From now on it is NAME's: what a dead process, or the one before, has there is replaced. */
  show(): void;
  close(): Promise<void>;
}

/** Opens a control socket for root alone, to become NAME's, which the caller owns by then. */
export async function openControl(name: string, answer: (question: unknown) => Promise<Said>): Promise<ControlSocket> {
  makeRunFolder();
  const path = runFile(name, '.sock.new');
  rmSync(path, { force: true });
  const clients = new Set<Socket>();
  const server = createServer((client) => {
    clients.add(client);
    client.on('close', () => clients.delete(client));
    serveClient(client, answer);
  });
  server.maxConnections = CONTROL_CLIENTS_MAX;
  await listening(server, path);
  // A client that cannot be accepted is that client's trouble, not the device's.
  server.on('error', () => {});
  try {
    chmodSync(path, 0o600);
  } catch (cause) {
    server.close();
    throw new DaemonError('system', `cannot protect the control socket ${path}: ${cause}`, cause);
  }
  let isShown = false;
  return {
    show: () => {
      renameSync(path, runFile(name, '.sock'));
      isShown = true;
    },
    close: () =>
      new Promise((resolve) => {
        if (isShown) rmSync(runFile(name, '.sock'), { force: true });
        server.close(() => resolve());
        for (const client of clients) client.end();
        for (const client of clients) setTimeout(() => client.destroy(), 1_000).unref();
      }),
  };
}

/** Asks the process that serves NAME; a process that does not answer in time is an error, not a wait without end. */
export function askControl(name: string, question: unknown, limitMs: number): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(runFile(name, '.sock'));
    const end = (error: DaemonError) => {
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(() => {
      end(new DaemonError('time-limit', `the process that serves ${name} did not answer within ${limitMs / 1000} s`));
    }, limitMs);
    const lines = new JsonLines((value) => {
      resolve(value as ControlAnswer);
      socket.end();
    });
    socket.on('connect', () => socket.write(jsonLine(question)));
    socket.on('data', (bytes) => lines.receive(bytes) || socket.destroy());
    socket.on('error', (cause) => {
      end(new DaemonError('not-running', `the process that serves ${name} does not answer: ${cause.message}`, cause));
    });
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new DaemonError('died', `the process that serves ${name} ended before it answered`));
    });
  });
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new DaemonError('system', `cannot open the control socket ${path}: ${cause.message}`, cause));
    });
    server.listen(path, resolve);
  });
}

function serveClient(client: Socket, answer: (question: unknown) => Promise<Said>): void {
  const lines = new JsonLines((question) => {
    client.setTimeout(0); // the answer may take longer than a client may be idle
    const reply = ({ answer: said, afterwards }: Said) => {
      client.setTimeout(CONTROL_IDLE_MS);
      client.write(jsonLine(said), () => afterwards?.());
    };
    answer(question).then(reply, (error: unknown) =>
      reply({ answer: { ok: false, code: 'system', message: String(error) } }),
    );
  });
  client.setTimeout(CONTROL_IDLE_MS, () => client.destroy());
  client.on('data', (bytes) => lines.receive(bytes) || client.destroy());
  client.on('error', () => {});
}
