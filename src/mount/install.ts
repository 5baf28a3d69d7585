import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { BootFile } from './boot-files.js';
import { MountError } from './errors.js';

/** What was done, or with a dry run would be, to a file or a folder. */
export interface InstallStep {
  readonly kind: 'write' | 'replace' | 'same' | 'remove' | 'gone' | 'changed';
  readonly path: string;
}

/** What an earlier run has put in place, so that exactly that is removed again. */
interface Manifest {
  /** The hash of each file's content. */
  readonly files: Readonly<Record<string, string>>;
  /** Made for them, in the order in which they were made. */
  readonly folders: readonly string[];
}

const MANIFEST = '/var/lib/tsnbd/installed.json';

/**
 * Puts the files in their places below `root` ('' is the machine's own), and takes away what an earlier version has put there
 * besides. What somebody else has put in such a place is not replaced.
 *
 * @throws MountError 'failed'; what the file system does not allow
 */
export function install(root: string, files: readonly BootFile[], dryRun: boolean): readonly InstallStep[] {
  const before = manifestOf(root);
  const steps = files.map((file): InstallStep => ({ kind: kindOf(root, file), path: join(root, file.path) }));
  // The very same, as npm puts manual pages there, does, and stays when we are uninstalled.
  const isForeign = ({ path }: BootFile) => !Object.hasOwn(before.files, path) && existsSync(join(root, path));
  const ours = files.filter((file) => !isForeign(file));
  const [other] = files.filter((file) => isForeign(file) && contentOf(join(root, file.path)) !== file.text);
  if (other !== undefined) {
    const path = join(root, other.path);
    throw new MountError('failed', `${path} is there, and was not put there by tsnbd install; nothing was done`);
  }
  const obsolete = Object.keys(before.files).filter((path) => !files.some((file) => file.path === path));
  if (dryRun) return [...steps, ...obsolete.map((path): InstallStep => ({ kind: 'remove', path: join(root, path) }))];
  mkdirSync(join(root, '/'), { recursive: true });
  const folders = [...before.folders, ...makeFolders(root, dirname(MANIFEST))];
  const hashes: Record<string, string> = { ...before.files };
  for (const file of ours) {
    folders.push(...makeFolders(root, dirname(file.path)));
    hashes[file.path] = hashOf(file.text);
    // Before the file: whatever ends it here, it is known what may be there.
    writeManifest(root, { files: hashes, folders });
    writeWhole(join(root, file.path), file.text, file.mode);
  }
  const removed = obsolete.map((path) => removeFile(root, path, before.files[path]));
  for (const path of obsolete) delete hashes[path];
  writeManifest(root, { files: hashes, folders });
  return [...steps, ...removed];
}

/** Removes what was put in place, but no file that was changed since, and no folder that holds something. */
export function uninstall(root: string, dryRun: boolean): readonly InstallStep[] {
  const { files, folders } = manifestOf(root);
  const steps = Object.entries(files).map(([path, hash]) =>
    dryRun ? plannedRemoval(root, path, hash) : removeFile(root, path, hash),
  );
  if (dryRun || Object.keys(files).length === 0) return steps;
  rmSync(join(root, MANIFEST), { force: true });
  for (const folder of [...folders].reverse()) {
    try {
      rmdirSync(join(root, folder));
      steps.push({ kind: 'remove', path: join(root, folder) });
    } catch {
      // Somebody else has something in it, or removed it.
    }
  }
  return steps;
}

function kindOf(root: string, { path, text, mode }: BootFile): InstallStep['kind'] {
  const there = contentOf(join(root, path));
  if (there === undefined) return 'write';
  return there === text && (statSync(join(root, path)).mode & 0o7777) === mode ? 'same' : 'replace';
}

function plannedRemoval(root: string, path: string, hash: string | undefined): InstallStep {
  const content = contentOf(join(root, path));
  const kind = content === undefined ? 'gone' : hashOf(content) === hash ? 'remove' : 'changed';
  return { kind, path: join(root, path) };
}

function removeFile(root: string, path: string, hash: string | undefined): InstallStep {
  const step = plannedRemoval(root, path, hash);
  if (step.kind === 'remove') rmSync(step.path);
  return step;
}

/** Answers those that were not there, the outermost first. */
function makeFolders(root: string, folder: string): readonly string[] {
  if (existsSync(join(root, folder))) return [];
  const made = [...makeFolders(root, dirname(folder)), folder];
  mkdirSync(join(root, folder), { mode: 0o755 });
  return made;
}

function writeWhole(path: string, text: string, mode: number): void {
  const fresh = `${path}.tsnbd-new`;
  try {
    writeFileSync(fresh, text, { flush: true });
    chmodSync(fresh, mode); // whatever the umask is
    renameSync(fresh, path);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}

function manifestOf(root: string): Manifest {
  const text = contentOf(join(root, MANIFEST));
  if (text === undefined) return { files: {}, folders: [] };
  try {
    const { files, folders } = JSON.parse(text) as Manifest;
    if (typeof files === 'object' && Array.isArray(folders)) return { files, folders };
  } catch {
    // Said below.
  }
  throw new MountError('failed', `${join(root, MANIFEST)} does not say what was installed: it is damaged`);
}

function writeManifest(root: string, manifest: Manifest): void {
  writeWhole(join(root, MANIFEST), `${JSON.stringify(manifest, null, 1)}\n`, 0o644);
}

function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function hashOf(text: string): string {
  return process.getBuiltinModule('node:crypto').createHash('sha256').update(text).digest('hex');
}
