import { readFileSync, realpathSync } from 'node:fs';
import type { FoundContent } from '../attach/probe.js';
import { addLine, formattedLine } from '../mount/fstab-file.js';
import { surveySource } from '../mount/survey.js';
import { isNbdUri } from '../transport/uri.js';
import { UsageError } from './errors.js';
import { EXIT_STATUSES } from './exit-status.js';
import { checkFstab } from './fstab-check.js';
import { mountSettings, sourceRequest } from './mount-options.js';
import { inMountOptions, PROGRAMS_PATH } from './mounting.js';
import { tellNotice } from './run.js';
import type { FstabAction } from './tsnbd-fstab-options.js';

/** Adds a line to fstab, or checks the lines that are there. Answers the exit status. */
export async function fstabAndTell(program: string, action: FstabAction): Promise<number> {
  process.env.PATH = PROGRAMS_PATH;
  if (action.what === 'check') {
    const problems = await checkFstab(readFileSync(action.file, 'utf8'));
    for (const { line, text } of problems) {
      const where = line === undefined ? '' : `${action.file}, line ${line.number}, ${line.folder}: `;
      process.stdout.write(`${where}${text}\n`);
    }
    return EXIT_STATUSES[problems.length === 0 ? 'done' : 'other'].status;
  }
  const { spec, folder, file, dryRun } = action;
  const settings = mountSettings(action.options);
  const request = sourceRequest(spec, settings);
  const looked = request.kind === 'image' ? { ...request, readOnly: !request.temporary } : request;
  const notice = tellNotice(program);
  const { device, found } = await surveySource(looked, (event) => event.kind === 'notice' && notice(event.text)).catch(
    (error) => {
      if (error instanceof Error) error.message = inMountOptions(error.message);
      throw error;
    },
  );
  const list = optionsFor(spec, action.options, chosenPartition(device, found, settings.own.partition !== undefined));
  const line = formattedLine({ spec: specFor(spec), folder, type: 'tsnbd', options: list });
  if (dryRun) {
    process.stdout.write(`${line}\n`);
    return EXIT_STATUSES.done.status;
  }
  const backup = addLine(file, line);
  process.stdout.write(`${line}\nadded to ${file}, which is kept as ${backup}; mount it by: mount ${folder}\n`);
  return EXIT_STATUSES.done.status;
}

/** 'partition=2', or nothing for the whole disk. @throws UsageError with what there is to choose from */
function chosenPartition(device: string, found: readonly FoundContent[], isGiven: boolean): string | undefined {
  if (isGiven) return undefined;
  const mountable = found.filter(({ type }) => type !== undefined && type !== 'swap');
  const [only] = mountable;
  const number = (content: FoundContent) => content.device.slice(device.length + 1);
  if (only !== undefined && (mountable.length === 1 || only.device === device)) {
    return only.device === device ? undefined : `partition=${number(only)}`;
  }
  if (only === undefined) throw new UsageError('SPEC: no file system is found on it');
  const choices = mountable.map((content) => {
    const label = content.label ?? content.partitionLabel;
    return `${number(content)} (${content.type}${label === undefined ? '' : `, ${label}`})`;
  });
  throw new UsageError(
    `option partition: name one of the partitions ${choices.join(', ')}, as in -o partition=${number(only)}`,
  );
}

/** findmnt(8) takes a URI with an equals sign for NAME=value: the socket goes among the options. */
function specFor(spec: string): string {
  if (!isNbdUri(spec)) return realpathSync(spec);
  return spec.replace(/([?&;])socket=[^&;]*/, '$1').replace(/[?&;]+$/, '');
}

function optionsFor(spec: string, given: string, partition: string | undefined): string {
  const isUri = isNbdUri(spec);
  const socket = isUri ? /[?&;]socket=([^&;]*)/.exec(spec)?.[1] : undefined;
  const path = socket === undefined ? undefined : decodeURIComponent(socket);
  if (path?.includes('\0')) throw new UsageError('a line of fstab cannot name an abstract socket');
  const list = [
    ...(isUri && !mountSettings(given).netdev ? ['_netdev'] : []),
    ...(path === undefined ? [] : [path.includes(',') ? `socket="${path}"` : `socket=${path}`]),
    ...(given === '' ? [] : [given]),
    ...(partition === undefined ? [] : [partition]),
  ];
  return list.length === 0 ? 'defaults' : list.join(',');
}
