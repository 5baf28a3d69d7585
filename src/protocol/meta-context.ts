import { CursorError, ReadCursor, WriteCursor } from '../base/cursor.js';
import { ProtocolError } from './errors.js';
import { decodeExportName, encodeExportName } from './option.js';
import { decodeString, encodeString } from './text.js';

/** A metadata context (proto.md, 'Metadata querying') under the number that status chunks name it by. */
export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface ContextQuestion {
  readonly exportName: string;
  /** Each begins with a namespace and a colon, or means nothing to us. */
  readonly queries: readonly string[];
}

/** What is allocated, and what reads as zeroes: its descriptors have NBD_STATE_… flags. */
export const BASE_ALLOCATION: MetaContext = { id: 1, name: 'base:allocation' };

/** QEMU's: how many images down an extent was written; its descriptors are numbers, 0 for nowhere (docs/interop/nbd.rst). */
export const ALLOCATION_DEPTH: MetaContext = { id: 2, name: 'qemu:allocation-depth' };

/** The contexts of `offered` that a list shows: all of them without a query, 'base:' for all of a namespace. */
export function listedContexts(queries: readonly string[], offered: readonly string[]): readonly MetaContext[] {
  const ours = known(offered);
  return queries.length === 0 ? ours : ours.filter(({ name }) => queries.some((query) => isListedBy(query, name)));
}

/** The contexts of `offered` that a client selects: by their whole names only. What it asks for beyond them is ignored. */
export function selectedContexts(queries: readonly string[], offered: readonly string[]): readonly MetaContext[] {
  return known(offered).filter(({ name }) => queries.includes(name));
}

export function encodeContextQuestion({ exportName, queries }: ContextQuestion): Uint8Array<ArrayBuffer> {
  const name = encodeExportName(exportName);
  const cursor = new WriteCursor().u32be(name.length).bytes(name).u32be(queries.length);
  for (const query of queries) {
    const bytes = encodeString(query, 'a query for metadata contexts');
    cursor.u32be(bytes.length).bytes(bytes);
  }
  return cursor.finish();
}

/** Reads a question of at most OPTION_DATA_BYTES_MAX; throws a ProtocolError on any misfit. */
export function decodeContextQuestion(data: Uint8Array): ContextQuestion {
  try {
    const cursor = new ReadCursor(data);
    const exportName = decodeExportName(cursor.bytes(cursor.u32be()));
    const queries: string[] = [];
    for (let left = cursor.u32be(); left > 0; left -= 1) {
      const query = cursor.bytes(cursor.u32be());
      queries.push(decodeString(query, 'the client', 'a query for metadata contexts'));
    }
    if (cursor.remainingBytes === 0) return { exportName, queries };
  } catch (error) {
    if (!(error instanceof CursorError)) throw error;
  }
  throw new ProtocolError('violation', 'the lengths in the question for metadata contexts do not add up');
}

/** The data of NBD_REP_META_CONTEXT. */
export function encodeMetaContext({ id, name }: MetaContext): Uint8Array<ArrayBuffer> {
  return new WriteCursor().u32be(id).bytes(encodeString(name, 'the name of a metadata context')).finish();
}

export function decodeMetaContext(data: Uint8Array): MetaContext {
  try {
    const cursor = new ReadCursor(data);
    const id = cursor.u32be();
    return { id, name: decodeString(cursor.bytes(cursor.remainingBytes), 'the server', 'a metadata context') };
  } catch (cause) {
    if (!(cause instanceof CursorError)) throw cause;
    throw new ProtocolError('violation', 'the server sent a NBD_REP_META_CONTEXT that is too short', { cause });
  }
}

/** What a name that an export offers stands for here. */
const KNOWN_CONTEXTS: readonly MetaContext[] = [BASE_ALLOCATION, ALLOCATION_DEPTH];

function known(offered: readonly string[]): readonly MetaContext[] {
  return KNOWN_CONTEXTS.filter(({ name }) => offered.includes(name));
}

function isListedBy(query: string, name: string): boolean {
  return query === name || (query.endsWith(':') && name.startsWith(query));
}
