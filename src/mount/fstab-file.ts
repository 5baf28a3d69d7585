import {
  chmodSync,
  chownSync,
  copyFileSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { MountError } from './errors.js';

/** A line of fstab(5) that is neither empty nor a comment; what is escaped in it is resolved. */
export interface FstabLine {
  /** From 1 on. */
  readonly number: number;
  readonly spec: string;
  readonly folder: string;
  readonly type: string;
  readonly options: string;
  readonly passno: string;
}

/** Lines with too few fields are left out, as mount(8) does. */
export function fstabLines(text: string): readonly FstabLine[] {
  return text.split('\n').flatMap((line, index): FstabLine[] => {
    const fields = line.split(/[ \t]+/).filter((field) => field !== '');
    const [spec = '', folder, type, options = 'defaults', , passno = '0'] = fields.map(resolved);
    if (spec === '' || spec.startsWith('#') || folder === undefined || type === undefined) return [];
    return [{ number: index + 1, spec, folder: withoutSlash(folder), type, options, passno }];
  });
}

/** Whether mount(8) calls mount.tsnbd for it. */
export function isOurs({ type }: FstabLine): boolean {
  return type === 'tsnbd' || type.startsWith('tsnbd.');
}

/** A line that says this. passno is 0: fsck(8) does not know the type. */
export function formattedLine({ spec, folder, type, options }: Omit<FstabLine, 'number' | 'passno'>): string {
  return `${[spec, folder, type, options].map(escaped).join('\t')}\t0 0`;
}

/**
 * Puts a line at the end of the file, whole or not at all, and keeps the file as it was beside it. Answers the path of that.
 *
 * @throws MountError 'failed' when the mount point has a line already
 */
export function addLine(path: string, line: string): string {
  const file = realpathSync(path);
  const text = readFileSync(file, 'utf8');
  const [added] = fstabLines(line);
  const there = fstabLines(text).find(({ folder }) => folder === added?.folder);
  if (there !== undefined)
    throw new MountError('failed', `${path} has a line for ${there.folder} already, line ${there.number}`);
  const backup = `${file}.before-tsnbd`;
  copyFileSync(file, backup);
  const fresh = `${file}.tsnbd-new`;
  const { mode, uid, gid } = statSync(file);
  try {
    writeFileSync(fresh, `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}${line}\n`, { flush: true });
    chmodSync(fresh, mode & 0o7777);
    chownSync(fresh, uid, gid);
    renameSync(fresh, file);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
  return backup;
}

function withoutSlash(folder: string): string {
  return folder.replace(/(?<=.)\/+$/, '');
}

/** fstab(5): a backslash and three octal digits. */
function resolved(field: string): string {
  const bytes = Buffer.from(field).toString('latin1');
  const raw = bytes.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8) & 0xff),
  );
  return Buffer.from(raw, 'latin1').toString('utf8');
}

/** A number sign begins a comment only at the beginning of a line, where none of ours stands. */
function escaped(field: string): string {
  return field.replaceAll(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}
