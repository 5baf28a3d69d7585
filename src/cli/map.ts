import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { mapExport } from '../attach/map-export.js';
import { ImageError, reasonOf } from '../image/errors.js';
import { mapImage } from '../image/map-image.js';
import { formatNbdUri } from '../transport/uri.js';
import { EXIT_STATUSES } from './exit-status.js';
import { exportMapAsJson, imageMapAsJson, type MapPiece, mapAsText, piecesOf } from './map-report.js';
import { mapAsSvg } from './map-svg.js';
import type { Verbosity } from './parse.js';
import { Progress } from './progress.js';
import { tellMessages } from './run.js';
import type { Source } from './source-options.js';
import type { MapAction } from './tsnbd-map-options.js';

/** A map of either kind. */
interface DrawableMap {
  readonly name: string;
  readonly sizeBytes: number;
  readonly pieces: readonly MapPiece[];
  readonly json: () => string;
}

/** Prints where the data, zeroes and holes of an image or an export lie, or draws it. */
export async function showMap(program: string, { source, form, verbosity }: MapAction): Promise<number> {
  const progress = new Progress(process.stderr);
  const map = await mapOf(program, source, verbosity, progress).finally(() => progress.end());
  if (form === 'text') process.stdout.write(mapAsText(map.pieces));
  else if (form === 'json') process.stdout.write(map.json());
  else writePicture(form.svgPath, mapAsSvg(map.name, map.sizeBytes, map.pieces));
  return EXIT_STATUSES.done.status;
}

async function mapOf(program: string, source: Source, verbosity: Verbosity, progress: Progress): Promise<DrawableMap> {
  const onProgress = (done: number, total: number) => progress.tell(done, total);
  if (source.kind === 'export') {
    const watch = { onMessage: tellMessages(program, verbosity), onProgress };
    const { sizeBytes, pieces } = await mapExport(source.target, watch);
    return { name: formatNbdUri(source.target), sizeBytes, pieces, json: () => exportMapAsJson(pieces) };
  }
  const map = mapImage(source.path, source, onProgress);
  progress.end();
  for (const notice of map.notices) process.stderr.write(`${program}: ${notice}\n`);
  return { name: source.path, sizeBytes: map.sizeBytes, pieces: piecesOf(map), json: () => imageMapAsJson(map) };
}

/** What lies at `path` stays as it was until the picture is whole; a terminal or a pipe is written to as it is. */
function writePicture(path: string, picture: string): void {
  const known = statSync(path, { throwIfNoEntry: false });
  const isWhole = known !== undefined && !known.isFile();
  const written = isWhole ? path : `${path}.${process.pid}`;
  try {
    writeFileSync(written, picture, isWhole ? {} : { flag: 'wx' });
    if (!isWhole) renameSync(written, path);
  } catch (cause) {
    if (!isWhole) rmSync(written, { force: true });
    throw new ImageError('system', `cannot write ${path}: ${reasonOf(cause)}`, { cause });
  }
}
