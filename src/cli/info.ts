import { describeExport } from '../attach/query.js';
import { describeImage } from '../image/describe-image.js';
import { EXIT_STATUSES } from './exit-status.js';
import { exportsAsJson, exportsAsText } from './export-report.js';
import { imageAsJson, imageAsText } from './image-report.js';
import type { InfoAction } from './tsnbd-info-options.js';

/** Prints what there is to say of an image or an export. */
export async function showInfo(program: string, { source, json }: InfoAction): Promise<number> {
  if (source.kind === 'export') {
    const { address } = source.target;
    const described = [{ kind: 'described', description: await describeExport(source.target) }] as const;
    process.stdout.write(json ? exportsAsJson(address, described) : exportsAsText(address, described));
  } else {
    const image = describeImage(source.path, source);
    for (const notice of image.notices) process.stderr.write(`${program}: ${notice}\n`);
    process.stdout.write(json ? imageAsJson(image) : imageAsText(image));
  }
  return EXIT_STATUSES.done.status;
}
