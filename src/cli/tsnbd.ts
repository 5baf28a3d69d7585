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
    case 'serve': {
      const { serveImages } = await import('./serve.js');
      return serveImages(PROGRAM, action);
    }
    case 'info': {
      const { showInfo } = await import('./info.js');
      return showInfo(PROGRAM, action);
    }
    case 'map': {
      const { showMap } = await import('./map.js');
      return showMap(PROGRAM, action);
    }
    case 'list': {
      const { showList } = await import('./list.js');
      return showList(PROGRAM, action);
    }
    case 'list-as-qemu': {
      const { listAsQemu } = await import('./list-as-qemu.js');
      return listAsQemu(PROGRAM, action.address, action.verbosity);
    }
    case 'check': {
      const { checkAndTell } = await import('./check.js');
      return checkAndTell(PROGRAM, action);
    }
    case 'run': {
      const { runAttached } = await import('./run-attached.js');
      return runAttached(PROGRAM, action);
    }
    case 'ls': {
      const { showDevices } = await import('./devices.js');
      return showDevices(action);
    }
    case 'status': {
      const { showDevice } = await import('./devices.js');
      return showDevice(action);
    }
    case 'resize': {
      const { resizeAndTell } = await import('./devices.js');
      return resizeAndTell(action);
    }
    case 'mount': {
      const { mountAndTell } = await import('./mounting.js');
      return mountAndTell(PROGRAM, action);
    }
    case 'umount': {
      const { unmountAndTell } = await import('./mounting.js');
      return unmountAndTell(PROGRAM, action);
    }
    case 'install': {
      const { installAndTell } = await import('./install.js');
      return installAndTell(action);
    }
    case 'fstab': {
      const { fstabAndTell } = await import('./fstab.js');
      return fstabAndTell(PROGRAM, action);
    }
    case 'restart': {
      const { restartDevice } = await import('../attach/restart.js');
      await restartDevice(action.device);
      process.stdout.write(`/dev/${action.device} restarted\n`);
      return EXIT_STATUSES.done.status;
    }
    case 'completion': {
      const { completionText } = await import('./completion.js');
      process.stdout.write(completionText(action.shell));
      return EXIT_STATUSES.done.status;
    }
    case 'create': {
      const { createImage } = await import('./create.js');
      return createImage(PROGRAM, action);
    }
    default:
      return tellAnswer(PROGRAM, action);
  }
}
