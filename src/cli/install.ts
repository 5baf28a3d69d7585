import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bootFiles } from '../mount/boot-files.js';
import { type InstallStep, install, uninstall } from '../mount/install.js';
import { reloadServiceManager } from '../mount/programs.js';
import { completionText } from './completion.js';
import { EXIT_STATUSES } from './exit-status.js';
import { SHELLS } from './shells.js';
import type { InstallAction } from './tsnbd-install-options.js';

const TOLD: Readonly<Record<InstallStep['kind'], { readonly done: string; readonly planned: string }>> = {
  write: { done: 'wrote', planned: 'would write' },
  replace: { done: 'wrote again', planned: 'would write again' },
  same: { done: 'is there', planned: 'is there' },
  remove: { done: 'removed', planned: 'would remove' },
  gone: { done: 'was gone', planned: 'is gone' },
  changed: { done: 'left, for it was changed', planned: 'would leave, for it was changed' },
};

/** Puts in place, or removes, what mounting by fstab needs, and tells it. */
export async function installAndTell({ root, uninstall: remove, dryRun }: InstallAction): Promise<number> {
  const steps = remove ? uninstall(root, dryRun) : install(root, bootFiles(here()), dryRun);
  for (const { kind, path } of steps) process.stdout.write(`${TOLD[kind][dryRun ? 'planned' : 'done']} ${path}\n`);
  if (steps.length === 0) process.stdout.write('nothing is installed\n');
  const hasChanged = steps.some(({ kind }) => kind === 'write' || kind === 'replace' || kind === 'remove');
  if (hasChanged && root === '' && !dryRun && (await reloadServiceManager())) {
    process.stdout.write('systemd has read its units again\n');
  }
  return EXIT_STATUSES.done.status;
}

/** Where this program lies, and the texts that came with it. */
function here() {
  const folder = dirname(fileURLToPath(import.meta.url));
  const manual = join(folder, '..', 'man');
  const pages = readdirSync(manual).filter((name) => name.endsWith('.8'));
  return {
    node: realpathSync(process.execPath),
    folder,
    manualPages: new Map(pages.map((name) => [name, readFileSync(join(manual, name), 'utf8')])),
    completions: new Map(SHELLS.map((shell) => [shell, completionText(shell)])),
  };
}
