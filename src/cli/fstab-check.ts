import { existsSync } from 'node:fs';
import { isChosen } from '../attach/find-partition.js';
import { type FstabLine, fstabLines, isOurs } from '../mount/fstab-file.js';
import { installedHelperProblem, moduleProblem } from '../mount/readiness.js';
import { surveySource } from '../mount/survey.js';
import { isNbdUri } from '../transport/uri.js';
import { type MountSettings, mountSettings, sourceRequest } from './mount-options.js';
import { inMountOptions } from './mounting.js';

/** Something that is wrong with a line, or with the machine. */
export interface FstabProblem {
  readonly line: FstabLine | undefined;
  readonly text: string;
}

/** Looks at every line of ours. What is wrong is the answer; only what kept us from looking is thrown. */
export async function checkFstab(text: string): Promise<readonly FstabProblem[]> {
  const every = fstabLines(text);
  const ours = every.filter(isOurs);
  const problems: FstabProblem[] = [];
  if (ours.length > 0) {
    for (const found of [await moduleProblem(), await installedHelperProblem()]) {
      if (found !== undefined) problems.push({ line: undefined, text: found });
    }
  }
  for (const line of ours) {
    const said = (found: string) => problems.push({ line, text: found });
    try {
      const settings = mountSettings(line.options);
      for (const found of problemsOf(line, settings, every)) said(found);
      await tryIt(line, settings, said);
    } catch (error) {
      const { code, message } = error as { code?: unknown; message: string };
      if (code === 'not-root') throw error;
      said(inMountOptions(message));
    }
  }
  return problems;
}

/** What can be seen without attaching. */
function problemsOf(line: FstabLine, settings: MountSettings, every: readonly FstabLine[]): readonly string[] {
  const { spec, folder, passno } = line;
  const isUri = isNbdUri(spec);
  const listed = line.options.split(',');
  return [
    ...(isUri && !settings.netdev
      ? [
          '_netdev is missing: it is mounted before the network is there, and the boot ends in emergency mode when that fails',
        ]
      : []),
    ...(isUri && spec.includes('=')
      ? ['findmnt takes a URI with an equals sign for a mistake: use the option socket']
      : []),
    ...(passno === '0' ? [] : ['the last field is not 0: fsck(8) does not know the type; use fsck=auto']),
    ...(existsSync(folder) || listed.some((option) => option.startsWith('X-mount.mkdir'))
      ? []
      : [`the mount point ${folder} does not exist`]),
    ...every
      .filter((other) => other.folder === folder && other.number < line.number)
      .map((other) => `the mount point has a line already, line ${other.number}`),
    ...(isUri ? [] : sharingProblems(line, settings, every)),
  ];
}

/** Whichever of them is mounted first decides how the image is opened. */
function sharingProblems(line: FstabLine, settings: MountSettings, every: readonly FstabLine[]): readonly string[] {
  return every
    .filter((other) => isOurs(other) && other.spec === line.spec && other.number < line.number)
    .filter((other) => isReadOnly(other) !== settings.readOnly)
    .map(
      (other) => `line ${other.number} has the same image, and only one of them has ro: give it to both, or to none`,
    );
}

function isReadOnly({ options }: FstabLine): boolean {
  try {
    return mountSettings(options).readOnly;
  } catch {
    return false; // it is told for that line
  }
}

async function tryIt(line: FstabLine, settings: MountSettings, said: (problem: string) => void): Promise<void> {
  const request = sourceRequest(line.spec, settings);
  const looked = request.kind === 'image' ? { ...request, readOnly: !request.temporary } : request;
  const { device, found } = await surveySource(looked, () => {});
  const { partition, fstype } = settings.own;
  const chosen = found.filter((content) =>
    partition === undefined ? content.device === device : isChosen(content, device, partition),
  );
  const [first] = chosen;
  const there = found.slice(1).map((content) => content.device.slice(device.length + 1));
  const listed = there.length === 0 ? 'it has none' : `it has ${there.join(', ')}`;
  if (first === undefined) said(`there is no such partition; ${listed}`);
  else if (chosen.length > 1) said('more than one partition is meant');
  else if (first.type === undefined)
    said(`no file system is found there${partition === undefined ? `; partitions: ${listed}` : ''}`);
  else if (fstype !== undefined && fstype !== first.type) said(`the file system is ${first.type}, not ${fstype}`);
}
