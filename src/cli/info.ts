import { describeExport } from '../attach/query.js';
import { describeChain, describeImage } from '../image/describe-image.js';
import { EXIT_STATUSES, QUESTION_STATUSES } from './exit-status.js';
import { isSo } from './export-question.js';
import { exportsAsJson, exportsAsText } from './export-report.js';
import { imagesAsJson, imagesAsText } from './image-report.js';
import { tellMessages } from './run.js';
import type { InfoAction } from './tsnbd-info-options.js';

/** Prints what there is to say of an image or an export, or answers one question by the exit status. */
export async function showInfo(
  program: string,
  { source, json, backingChain, question, verbosity }: InfoAction,
): Promise<number> {
  if (source.kind === 'export') {
    const { address } = source.target;
    const description = await describeExport(source.target, tellMessages(program, verbosity));
    if (question !== undefined) return isSo(question, description) ? QUESTION_STATUSES.yes : QUESTION_STATUSES.no;
    const described = [{ kind: 'described', description }] as const;
    process.stdout.write(json ? exportsAsJson(address, described) : exportsAsText(address, described));
  } else {
    const images = backingChain ? describeChain(source.path, source) : [describeImage(source.path, source)];
    for (const notice of images.flatMap(({ notices }) => notices)) process.stderr.write(`${program}: ${notice}\n`);
    process.stdout.write(json ? imagesAsJson(images, backingChain) : imagesAsText(images));
  }
  return EXIT_STATUSES.done.status;
}
