import { TransportError } from './errors.js';

/** Where a server listens. A host is a name or an address; IPv6 without brackets. */
export type Address = TcpAddress | UnixAddress;

/** Where we listen: an address, or a socket that listens already. */
export type ListenAddress = Address | InheritedSocket;

/** A listening socket, TCP or unix, that this process was started with. */
export interface InheritedSocket {
  readonly kind: 'inherited';
  readonly fd: number;
}

export interface TcpAddress {
  readonly kind: 'tcp';
  readonly host: string;
  readonly port: number;
}

export interface UnixAddress {
  readonly kind: 'unix';
  readonly path: string;
}

/** Registered for NBD (proto.md, 'Protocol phases' of newstyle negotiation; uri.md, 'NBD URI authority'). */
export const DEFAULT_PORT = 10_809;
export const PORT_MAX = 65_535;

/** sizeof sun_path less the NUL at its end (unix(7)); libuv cuts a longer path off without a word. */
export const UNIX_PATH_BYTES_MAX = 107;

/** The address as a message names it: '127.0.0.1 port 4000' or '/run/disk.sock'. */
export function addressInWords(address: ListenAddress): string {
  if (address.kind === 'inherited') return `the inherited socket (file descriptor ${address.fd})`;
  return address.kind === 'tcp' ? `${address.host} port ${address.port}` : address.path.replace(/^\0/, '@');
}

/** A unix socket that is in no folder: its name begins with a zero byte (unix(7), 'abstract'). */
export function isAbstract(path: string): boolean {
  return path.startsWith('\0');
}

/** The path or the abstract name of a unix socket to connect to, if it can be one. @throws TransportError 'address' */
export function checkUnixName(name: string): string {
  if (!isAbstract(name)) return checkUnixPath(name);
  const bytes = Buffer.byteLength(name) - 1;
  if (bytes < 1 || bytes > UNIX_PATH_BYTES_MAX) {
    throw new TransportError(
      'address',
      `the name of an abstract socket has 1 to ${UNIX_PATH_BYTES_MAX} bytes, this one has ${bytes}`,
    );
  }
  if (name.includes('\0', 1)) {
    throw new TransportError('address', 'the name of an abstract socket holds no NUL character but the first');
  }
  return name;
}

/** The path of a unix socket, if it can be one. @throws TransportError 'address' */
export function checkUnixPath(path: string): string {
  const bytes = Buffer.byteLength(path);
  if (bytes > UNIX_PATH_BYTES_MAX) {
    throw new TransportError(
      'address',
      `the path of a unix socket may have ${UNIX_PATH_BYTES_MAX} bytes, this one has ${bytes}: ${path}`,
    );
  }
  if (bytes === 0 || path.includes('\0')) {
    throw new TransportError('address', 'the path of a unix socket may not be empty or hold a NUL character');
  }
  return path;
}
