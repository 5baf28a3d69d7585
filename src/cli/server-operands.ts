import { type Address, DEFAULT_PORT } from '../transport/address.js';
import { isNbdUri, type NbdTarget } from '../transport/uri.js';
import { UsageError } from './errors.js';
import { host, nbdUri, path, portNumber } from './option-values.js';
import type { Operands } from './parse.js';

/** What the first operand leads to, if it is an NBD URI. */
export function uriOperand(operands: Operands, overUnix: boolean): NbdTarget | undefined {
  const given = operands.at(0);
  if (given === undefined || !isNbdUri(given)) return undefined;
  const target = operands.read('URI', nbdUri);
  if (overUnix) throw new UsageError('option --unix: the URI says whether it is a unix socket');
  return target;
}

/** HOST and PORT, or the path of a socket. */
export function serverAddress(operands: Operands, overUnix: boolean, hasPort: boolean): Address {
  if (overUnix) {
    if (hasPort) throw new UsageError('PORT: it has no meaning with --unix');
    return { kind: 'unix', path: operands.read('PATH', path) };
  }
  const hostName = operands.read('HOST', host);
  return { kind: 'tcp', host: hostName, port: hasPort ? operands.read('PORT', portNumber) : DEFAULT_PORT };
}
