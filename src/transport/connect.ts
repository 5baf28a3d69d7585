import { connect as connectSocket, type NetConnectOpts, type Socket } from 'node:net';
import { type Address, addressInWords, checkUnixName, type TcpAddress } from './address.js';
import { deadlineAfter } from './deadline.js';
import { deadlineError, reasonInWords, TransportError, type TransportErrorCode } from './errors.js';

/** Addresses of one name that are tried. */
export const ADDRESSES_MAX = 8;
/** What an address may take while there is another to try: a name's IPv6 address often leads nowhere. */
const ATTEMPT_LIMIT_MS = 3_000;
/** A connection that is silent for so long is probed; libuv gives it up after ten more seconds. */
export const KEEPALIVE_IDLE_MS = 30_000;

/** One address to try, and what to call it. */
interface Target {
  readonly words: string;
  readonly options: NetConnectOpts;
}

interface Failure {
  readonly target: Target;
  readonly error: unknown;
}

/**
 * Connects to the first address of the server that answers, in the system's order. Nothing is read from the socket yet
 * that its owner would not get. `deadline` covers the name lookup too.
 *
 * @throws TransportError 'address', 'unreachable', 'refused', 'time-limit', 'interrupted'
 */
export async function connect(address: Address, deadline: AbortSignal): Promise<Socket> {
  const doing = `connect to ${addressInWords(address)}`;
  const failures: Failure[] = [];
  const targets = await findTargets(address, deadline);
  for (const [index, target] of targets.entries()) {
    const limit = index === targets.length - 1 ? deadline : deadlineAfter(ATTEMPT_LIMIT_MS, deadline);
    try {
      return await attempt(target.options, limit);
    } catch (error) {
      if (deadline.aborted) throw deadlineError(deadline, doing);
      failures.push({ target, error });
    }
  }
  throw allFailed(doing, failures);
}

async function findTargets(address: Address, deadline: AbortSignal): Promise<readonly Target[]> {
  if (address.kind === 'unix') {
    return [{ words: addressInWords(address), options: { path: checkUnixName(address.path) } }];
  }
  const { host, port } = address;
  const { lookup } = process.getBuiltinModule('node:dns/promises');
  const found = await whileAlive(lookup(host, { all: true, verbatim: true }), deadline).catch((error: unknown) => {
    throw deadline.aborted ? deadlineError(deadline, `look up ${host}`) : lookupError(address, error);
  });
  return found.slice(0, ADDRESSES_MAX).map(({ address: ip }) => ({
    words: ip,
    options: { host: ip, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_IDLE_MS },
  }));
}

function attempt(options: NetConnectOpts, limit: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    limit.throwIfAborted();
    const socket = connectSocket(options);
    const settle = () => {
      limit.removeEventListener('abort', onAbort);
      socket.off('connect', onConnect).off('error', onError);
      // From here on whoever reads or writes sees the end; an 'error' without a listener would end the process.
      socket.on('error', () => {});
    };
    const onConnect = () => {
      settle();
      resolve(socket);
    };
    const onError = (error: Error) => {
      settle();
      reject(error);
    };
    const onAbort = () => {
      settle();
      socket.destroy();
      reject(limit.reason);
    };
    limit.addEventListener('abort', onAbort);
    socket.on('connect', onConnect).on('error', onError);
  });
}

/** getaddrinfo cannot be called back: it ends by itself, only nobody waits for it any more. */
function whileAlive<T>(answer: Promise<T>, deadline: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(deadline.reason);
    if (deadline.aborted) onAbort();
    deadline.addEventListener('abort', onAbort, { once: true });
    answer.then(resolve, reject).finally(() => deadline.removeEventListener('abort', onAbort));
  });
}

function lookupError(address: TcpAddress, cause: unknown): TransportError {
  const { code } = cause as NodeJS.ErrnoException;
  const why = code === 'ENOTFOUND' ? 'no such host is known' : `its name cannot be looked up (${code})`;
  return new TransportError('unreachable', `cannot connect to ${addressInWords(address)}: ${why}`, { cause });
}

function allFailed(doing: string, failures: readonly Failure[]): TransportError {
  const cause = failures[0]?.error;
  const reason =
    failures.length === 1
      ? attemptInWords(cause)
      : failures.map(({ target, error }) => `${target.words}: ${attemptInWords(error)}`).join('; ');
  const codes = failures.map(({ error }) => codeOf(error));
  const code = codes.find((found) => found === 'refused') ?? codes[0] ?? 'unreachable';
  return new TransportError(code, `cannot ${doing}: ${reason}`, { cause });
}

function attemptInWords(error: unknown): string {
  const { code, name } = error as NodeJS.ErrnoException;
  if (name === 'TimeoutError') return `no answer within ${ATTEMPT_LIMIT_MS / 1000} s`;
  if (code === 'ENOENT') return 'there is no such socket (ENOENT)';
  return reasonInWords(error);
}

function codeOf(error: unknown): TransportErrorCode {
  const { code, name } = error as NodeJS.ErrnoException;
  if (name === 'TimeoutError') return 'time-limit';
  return code === 'ECONNREFUSED' ? 'refused' : 'unreachable';
}
