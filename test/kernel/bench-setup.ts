import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { bootGuest, type Guest } from '../../scripts/kernel-bench-guest.js';

/** What guest.ts asks for: one request a connection, JSON both ways, each ended by closing that direction. */
export interface GuestRequest {
  readonly command: string;
  readonly limitMs: number;
  readonly cwd: string;
}

export type GuestReply =
  | { readonly kind: 'ended'; readonly status: number; readonly stdout: string; readonly stderr: string }
  | { readonly kind: 'died'; readonly message: string };

declare module 'vitest' {
  interface ProvidedContext {
    readonly kernelBench: { readonly socketPath: string; readonly workDir: string };
  }
}

let guest: Guest | undefined;
let server: Server | undefined;

/** Boots the one guest of a run of the project `kernel`. No guest, no tests: what it throws fails the run. */
export async function setup(project: TestProject): Promise<void> {
  const booted = await bootGuest();
  guest = booted;
  const socketPath = join(booted.folder, 'commands');
  server = createServer({ allowHalfOpen: true }, (socket) => void serve(socket, booted));
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  project.provide('kernelBench', { socketPath, workDir: booted.workDir });
}

export async function teardown(): Promise<void> {
  server?.close();
  await guest?.powerOff();
}

async function serve(socket: Socket, guest: Guest): Promise<void> {
  // A test that was ended does not read its answer.
  socket.on('error', () => {});
  try {
    const { command, ...options } = JSON.parse(await received(socket)) as GuestRequest;
    reply(socket, { kind: 'ended', ...(await guest.run(command, options)) });
  } catch (error) {
    reply(socket, { kind: 'died', message: error instanceof Error ? error.message : String(error) });
  }
}

/** All that the peer sends; unlike `text(socket)` it leaves the other direction open. */
async function received(socket: Socket): Promise<string> {
  const pieces: Buffer[] = [];
  socket.on('data', (piece) => pieces.push(piece));
  await once(socket, 'end');
  return Buffer.concat(pieces).toString('utf8');
}

function reply(socket: Socket, answer: GuestReply): void {
  socket.end(JSON.stringify(answer));
}
