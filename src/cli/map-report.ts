import type { ImageMap } from '../image/map-image.js';
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from '../protocol/constants.js';

/** A piece of a disk: NBD's numbers say what it is, 0 for data. */
export interface MapPiece {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly status: number;
}

/** By the number. */
export const STATUS_NAMES = ['data', 'hole', 'zero', 'hole,zero'] as const;

/** As nbdinfo --map prints it. */
export function mapAsText(pieces: readonly MapPiece[]): string {
  const lines = pieces.map(({ offsetBytes, lengthBytes, status }) => {
    const [offset, length] = [offsetBytes, lengthBytes].map((bytes) => String(bytes).padStart(10));
    return `${offset}  ${length}  ${String(status).padStart(3)}  ${STATUS_NAMES[status] ?? ''}\n`;
  });
  return lines.join('');
}

/** As nbdinfo --map --json prints it. */
export function exportMapAsJson(pieces: readonly MapPiece[]): string {
  return rowsAsJson(
    pieces.map(({ offsetBytes, lengthBytes, status }) => ({
      offset: offsetBytes,
      length: lengthBytes,
      type: status,
      description: STATUS_NAMES[status],
    })),
  );
}

/** As qemu-img map prints it. A raw image has all its bytes itself. */
export function imageMapAsJson({ formatName, pieces }: ImageMap): string {
  const isRaw = formatName === 'raw';
  return rowsAsJson(
    pieces.map(({ offsetBytes, lengthBytes, zero, depth, hostBytes }) => ({
      start: offsetBytes,
      length: lengthBytes,
      depth: Math.max(0, depth - 1),
      present: isRaw || depth > 0,
      zero,
      data: !zero,
      ...(hostBytes < 0 ? {} : { offset: hostBytes }),
    })),
  );
}

/** Of whatever image of a chain they are. */
export function piecesOf({ pieces }: ImageMap): readonly MapPiece[] {
  const joined: MapPiece[] = [];
  for (const { offsetBytes, lengthBytes, hole, zero } of pieces) {
    const status = (hole ? NBD_STATE_HOLE : 0) | (zero ? NBD_STATE_ZERO : 0);
    const last = joined.at(-1);
    if (last?.status === status) joined[joined.length - 1] = { ...last, lengthBytes: last.lengthBytes + lengthBytes };
    else joined.push({ offsetBytes, lengthBytes, status });
  }
  return joined;
}

/** A row a line, for there may be many. */
function rowsAsJson(rows: readonly object[]): string {
  return `[${rows.map((row) => JSON.stringify(row)).join(',\n')}]\n`;
}
