import { type MapPiece, STATUS_NAMES } from './map-report.js';
import { sizeInWords } from './sizes.js';

const COLUMNS = 128;
const ROWS_MAX = 32;
const CELL = 8;
const LEFT = 90;
const TOP = 64;
const SECTOR_BYTES = 512;
const WIDTH = LEFT + COLUMNS * CELL + 16;

/** By the number of the state; what is neither told nor known is left white. */
const COLOURS = ['#1f5fa8', '#d9dde3', '#9cc4ea', '#eceff2'] as const;

/** How many bytes of each state lie in one cell of the picture. */
type Cell = readonly number[];

/** Neighbours in a row that look alike. */
interface Run {
  readonly row: number;
  readonly column: number;
  readonly columns: number;
  readonly cell: Cell;
}

/**
 * A picture of a map, as an SVG: the disk in rows from its first byte at the top left, each cell coloured from below by what
 * share of it is data, zeroes, and holes. However many pieces the map has, the picture has at most 4,096 cells.
 */
export function mapAsSvg(name: string, sizeBytes: number, pieces: readonly MapPiece[]): string {
  const cellBytes = Math.max(SECTOR_BYTES, roundUp(sizeBytes / (COLUMNS * ROWS_MAX)));
  const cells = cellsOf(sizeBytes, cellBytes, pieces);
  const rows = Math.ceil(cells.length / COLUMNS);
  const labels = Array.from({ length: rows }, (_, row) => {
    const at = sizeInWords(row * COLUMNS * cellBytes);
    return `<text x="${LEFT - 8}" y="${TOP + (row + 1) * CELL - 1}" text-anchor="end">${at}</text>`;
  });
  const height = TOP + rows * CELL + 16;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="8">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${LEFT}" y="22" font-size="14">${escaped(name)}, ${sizeInWords(sizeBytes)}</text>`,
    ...legend(pieces),
    ...labels,
    ...runsOf(cells).flatMap((run) => drawn(run, cellBytes)),
    '</svg>\n',
  ].join('\n');
}

/** One pass over pieces and cells: there may be a million of the ones. */
function cellsOf(sizeBytes: number, cellBytes: number, pieces: readonly MapPiece[]): readonly Cell[] {
  const cells = Array.from({ length: Math.ceil(sizeBytes / cellBytes) }, () => STATUS_NAMES.map(() => 0));
  for (const { offsetBytes, lengthBytes, status } of pieces) {
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; ) {
      const index = Math.floor(at / cellBytes);
      const bytes = Math.min(end, (index + 1) * cellBytes) - at;
      const cell = cells[index];
      if (cell !== undefined) cell[status] = (cell[status] ?? 0) + bytes;
      at += bytes;
    }
  }
  return cells;
}

function runsOf(cells: readonly Cell[]): readonly Run[] {
  const runs: Run[] = [];
  for (const [index, cell] of cells.entries()) {
    const [row, column] = [Math.floor(index / COLUMNS), index % COLUMNS];
    const last = runs.at(-1);
    const isAlike =
      last !== undefined && last.row === row && last.cell.every((bytes, status) => bytes === cell[status]);
    if (isAlike) runs.pop();
    runs.push(isAlike ? { ...last, columns: last.columns + 1 } : { row, column, columns: 1, cell });
  }
  return runs;
}

function drawn({ row, column, columns, cell }: Run, cellBytes: number): readonly string[] {
  const from = (row * COLUMNS + column) * cellBytes;
  const total = cell.reduce((sum, bytes) => sum + bytes, 0);
  let bottom = TOP + (row + 1) * CELL;
  return cell.flatMap((bytes, status) => {
    if (bytes === 0) return [];
    const height = (CELL * bytes) / total;
    bottom -= height;
    const [x, y, width] = [LEFT + column * CELL, rounded(bottom), columns * CELL];
    const title = `from ${from}: ${STATUS_NAMES[status]}, ${Math.round((100 * bytes) / total)} %`;
    return [
      `<rect x="${x}" y="${y}" width="${width}" height="${rounded(height)}" fill="${COLOURS[status]}"><title>${title}</title></rect>`,
    ];
  });
}

function legend(pieces: readonly MapPiece[]): readonly string[] {
  const totals = STATUS_NAMES.map((name, status) => {
    const bytes = pieces.reduce((sum, piece) => sum + (piece.status === status ? piece.lengthBytes : 0), 0);
    return { name, status, bytes };
  });
  return totals
    .filter(({ bytes }) => bytes > 0)
    .flatMap(({ name, status, bytes }, index) => [
      `<rect x="${LEFT + index * 170}" y="34" width="12" height="12" fill="${COLOURS[status]}"/>`,
      `<text x="${LEFT + index * 170 + 18}" y="44" font-size="11">${name}: ${sizeInWords(bytes)}</text>`,
    ]);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Characters that XML 1.0 has no place for are left out. */
function escaped(text: string): string {
  const plain = text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '');
  return plain.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
