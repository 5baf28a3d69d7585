#!/usr/bin/env node
import { takePassedFds } from '../daemon/listen-fds.js';
import { attach } from './attach.js';
import { detach } from './detach-options.js';
import { EXIT_STATUSES } from './exit-status.js';
import { run, tellAnswer, tellSteps } from './run.js';
import { parseTsnbd, type TsnbdAction } from './tsnbd-options.js';

const PROGRAM = 'tsnbd';

const action = parseTsnbd(process.argv.slice(2), takePassedFds(process.env, process.pid));
void run(PROGRAM, 'verbosity' in action && action.verbosity.debug, () => act(action));

/** What is printed is what qemu-nbd prints. */
async function act(action: TsnbdAction): Promise<number> {
  switch (action.kind) {
    case 'attach': {
      const { request, verbosity } = action;
      const tell = tellSteps(PROGRAM, verbosity);
      return attach(request, action.foreground, (event) => {
        tell(event);
        if (event.kind !== 'attached') return;
        if (event.awaited !== undefined) process.stdout.write(`${event.awaited}\n`);
        else if (request.device === undefined) process.stdout.write(`/dev/${event.device}\n`);
        if (verbosity.verbose)
          process.stderr.write(`NBD device /dev/${event.device} is now connected to ${request.imagePath}\n`);
      });
    }
    case 'detach': {
      await detach(PROGRAM, action);
      process.stdout.write(`/dev/${action.device} disconnected\n`);
      return EXIT_STATUSES.done.status;
    }
    case 'help':
    case 'version':
    case 'usage-error':
      return tellAnswer(PROGRAM, action);
    default: {
      const { actOtherwise } = await import('./tsnbd-actions.js');
      return actOtherwise(PROGRAM, action);
    }
  }
}
