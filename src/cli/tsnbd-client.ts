#!/usr/bin/env node
import { existsSync, readFileSync } from 'node:fs';
import type { AttachEvent } from '../attach/attach-event.js';
import { attachedPid } from '../attach/check.js';
import { attach } from './attach.js';
import { detach } from './detach-options.js';
import { CHECK_STATUSES, EXIT_STATUSES } from './exit-status.js';
import { calledAs, run, tellAnswer, tellNotice, tellSteps } from './run.js';
import { parseTsnbdClient, type TsnbdClientAction } from './tsnbd-client-options.js';

const PROGRAM = 'tsnbd-client';
const NBDTAB = '/etc/nbdtab';

const action = parseTsnbdClient(process.argv.slice(2), calledAs(), nbdtab);
void run(PROGRAM, 'verbosity' in action && action.verbosity.debug, () => act(action));

function nbdtab(): string {
  return existsSync(NBDTAB) ? readFileSync(NBDTAB, 'utf8') : '';
}

/** What is printed, and on which stream, is what nbd-client prints there: scripts read it. It has no `auto`: there the name is all. */
async function act(action: TsnbdClientAction): Promise<number> {
  switch (action.kind) {
    case 'attach': {
      for (const text of action.notices ?? []) tellNotice(PROGRAM)(text);
      const tell = tellSteps(PROGRAM, action.verbosity);
      const isChosen = action.request.device === undefined;
      return attach(action.request, action.foreground, (event) => {
        tell(event);
        if (isChosen) tellDevice(event);
        else tellAsNbdClient(event);
        if (event.kind === 'attached') tellSettings(event);
      });
    }
    case 'detach': {
      await detach(PROGRAM, action);
      process.stdout.write('disconnect, sock, done\n');
      return EXIT_STATUSES.done.status;
    }
    case 'check': {
      const pid = attachedPid(action.device);
      if (pid === undefined) return CHECK_STATUSES.notAttached;
      process.stdout.write(`${pid}\n\n`); // nbd-client prints the kernel's line and a newline of its own
      return CHECK_STATUSES.attached;
    }
    case 'list': {
      const { listAsClient } = await import('./client-list.js');
      return listAsClient(PROGRAM, action);
    }
    default:
      return tellAnswer(PROGRAM, action);
  }
}

function tellAsNbdClient(event: AttachEvent): void {
  if (event.kind === 'negotiated') {
    process.stdout.write(`Negotiation: ..size = ${Math.floor(event.sizeBytes / 2 ** 20)}MB\n`);
  }
  if (event.kind === 'attached') {
    if (event.kernelApi === 'netlink') process.stdout.write(`Connected /dev/${event.device}\n`);
    if (event.awaited !== undefined) process.stdout.write(`${event.awaited}\n`);
  }
}

/** The device that the kernel chose, or the partition of it that was waited for. */
function tellDevice(event: AttachEvent): void {
  if (event.kind === 'attached') process.stdout.write(`${event.awaited ?? `/dev/${event.device}`}\n`);
}

function tellSettings(event: Extract<AttachEvent, { kind: 'attached' }>): void {
  process.stderr.write(`bs=${event.blockSizeBytes}, sz=${event.sizeBytes} bytes\n`);
  if (event.requestTimeoutSeconds > 0) process.stderr.write(`timeout=${event.requestTimeoutSeconds}\n`);
}
