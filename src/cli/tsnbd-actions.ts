import { EXIT_STATUSES } from './exit-status.js';
import type { TsnbdAction } from './tsnbd-options.js';

type OtherAction = Exclude<TsnbdAction, { readonly kind: 'attach' | 'detach' | 'help' | 'version' | 'usage-error' }>;

/**
 * All that tsnbd does but attach and detach, as a file of its own: those are started often, and for them most of it would be
 * read in vain. Errors cross between the two by their code, never by their class, of which each file has its own.
 */
export async function actOtherwise(program: string, action: OtherAction): Promise<number> {
  switch (action.kind) {
    case 'serve': {
      const { serveImages } = await import('./serve.js');
      return serveImages(program, action);
    }
    case 'info': {
      const { showInfo } = await import('./info.js');
      return showInfo(program, action);
    }
    case 'map': {
      const { showMap } = await import('./map.js');
      return showMap(program, action);
    }
    case 'list': {
      const { showList } = await import('./list.js');
      return showList(program, action);
    }
    case 'list-as-qemu': {
      const { listAsQemu } = await import('./list-as-qemu.js');
      return listAsQemu(program, action.address, action.verbosity);
    }
    case 'check': {
      const { checkAndTell } = await import('./check.js');
      return checkAndTell(program, action);
    }
    case 'run': {
      const { runAttached } = await import('./run-attached.js');
      return runAttached(program, action);
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
      return mountAndTell(program, action);
    }
    case 'umount': {
      const { unmountAndTell } = await import('./mounting.js');
      return unmountAndTell(program, action);
    }
    case 'install': {
      const { installAndTell } = await import('./install.js');
      return installAndTell(action);
    }
    case 'fstab': {
      const { fstabAndTell } = await import('./fstab.js');
      return fstabAndTell(program, action);
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
      return createImage(program, action);
    }
  }
}
