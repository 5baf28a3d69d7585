import { listExports } from '../attach/query.js';
import { printableText } from '../protocol/text.js';
import { EXIT_STATUSES } from './exit-status.js';
import { showList } from './list.js';
import { tellMessages } from './run.js';
import type { TsnbdClientAction } from './tsnbd-client-options.js';

type ListAction = Extract<TsnbdClientAction, { readonly kind: 'list' }>;

/** Lists a server's exports, by default in the words of nbd-client. Answers the exit status. */
export async function listAsClient(program: string, action: ListAction): Promise<number> {
  if (action.json) return showList(program, action);
  const exports = await listExports(action.address, tellMessages(program, action.verbosity));
  process.stdout.write('Negotiation: ..\n');
  for (const { name, description } of exports) {
    const line = description === '' ? name : `${name}: ${description}`;
    process.stdout.write(`${printableText(line)}\n`);
  }
  return EXIT_STATUSES.done.status;
}
