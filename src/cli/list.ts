import { describeExport, listExports } from '../attach/query.js';
import { ProtocolError } from '../protocol/errors.js';
import type { OnHandshakeMessage } from '../protocol/handshake-message.js';
import type { ListedExport } from '../protocol/option-reply.js';
import type { Address } from '../transport/address.js';
import type { NbdTarget } from '../transport/uri.js';
import { EXIT_STATUSES } from './exit-status.js';
import { exportsAsJson, exportsAsText, type ReportedExport } from './export-report.js';
import { tellMessages } from './run.js';
import type { ListAction } from './tsnbd-list-options.js';

/** Each is asked for on a connection of its own; of those beyond, only the names are shown. */
const DESCRIBED_MAX = 1_000;

/** Prints what a server tells of all its exports. */
export async function showList(
  program: string,
  { address, json, verbosity }: Omit<ListAction, 'kind'>,
): Promise<number> {
  const reported = await reportedExports(address, tellMessages(program, verbosity));
  process.stdout.write(json ? exportsAsJson(address, reported) : exportsAsText(address, reported));
  return EXIT_STATUSES.done.status;
}

/** The exports that a server lists, each as it describes it. */
export async function reportedExports(
  address: Address,
  onMessage: OnHandshakeMessage | undefined,
): Promise<readonly ReportedExport[]> {
  const reported: ReportedExport[] = [];
  for (const [index, listed] of (await listExports(address, onMessage)).entries()) {
    reported.push(
      index < DESCRIBED_MAX
        ? await describe({ address, exportName: listed.name }, listed, onMessage)
        : { kind: 'listed', ...listed, error: 'not asked for' },
    );
  }
  return reported;
}

/** What the server refuses for one export it may grant for the next; a connection that is lost is an error of the list. */
async function describe(
  target: NbdTarget,
  listed: ListedExport,
  onMessage: OnHandshakeMessage | undefined,
): Promise<ReportedExport> {
  try {
    const found = await describeExport(target, onMessage);
    const description = listed.description === '' ? {} : { description: listed.description };
    return { kind: 'described', description: { ...found, info: { ...description, ...found.info } } };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return { kind: 'listed', ...listed, error: error.message };
  }
}
