import { isIPv6 } from 'node:net';
import { STRING_BYTES_MAX } from '../protocol/limits.js';
import { printableText } from '../protocol/text.js';
import { type Address, checkUnixName, DEFAULT_PORT, PORT_MAX } from './address.js';
import { TransportError } from './errors.js';

/** What an NBD URI leads to. */
export interface NbdTarget {
  readonly address: Address;
  /** '' is the server's default export. */
  readonly exportName: string;
}

/** Whether a text is meant as an NBD URI, be it a bad one. A file or host of such a name is written in another way. */
export function isNbdUri(text: string): boolean {
  return /^nbds?(\+[^:/]*)?:/i.test(text);
}

/**
 * Reads an NBD URI (uri.md) or one of the two forms that QEMU had before: `nbd:HOST:PORT` and `nbd:unix:PATH`, perhaps with
 * `:exportname=NAME`. A path of a socket stays as it is, absolute or not.
 *
 * @throws TransportError 'address': what is wrong, and at which character
 */
export function parseNbdUri(text: string): NbdTarget {
  const scheme = /^[^:]*/.exec(text)?.[0] ?? '';
  const uri = new UriText(text);
  const kind = kindOf(uri, scheme.toLowerCase());
  const rest = { from: scheme.length + 1, to: text.length };
  if (!text.startsWith('//', rest.from)) {
    if (kind === 'tcp') return qemuTarget(uri, rest);
    throw uri.bad(rest, 'two slashes have to follow the scheme');
  }
  uri.checkCharacters();
  const behind = { from: rest.from + 2, to: rest.to };
  const [beforeQuery, query] = uri.cut(behind, '?');
  const [authority, path] = uri.cut(beforeQuery, '/');
  const parameters = queryOf(uri, query);
  const exportName = exportNameOf(uri, path);
  const socket = parameters.get('socket');
  if (kind === 'unix') return { address: unixAddress(uri, authority, socket), exportName };
  if (socket !== undefined) throw uri.bad(socket, `a socket is for nbd+unix; '${scheme}' leads to a host`);
  return { address: tcpAddress(uri, authority), exportName };
}

/** The shortest NBD URI that leads there. */
export function formatNbdUri({ address, exportName }: NbdTarget): string {
  const path = exportName === '' ? '' : encoded(exportName);
  if (address.kind === 'unix') return `nbd+unix:///${path}?socket=${encoded(address.path)}`;
  const { host, port } = address;
  const name = host.includes(':') ? `[${host.replace('%', '%25')}]` : encoded(host);
  return `nbd://${name}${port === DEFAULT_PORT ? '' : `:${port}`}/${path}`;
}

function encoded(text: string): string {
  return encodeURIComponent(text).replaceAll('%2F', '/');
}

/** A part of the text, by the indexes of its characters. */
interface Part {
  readonly from: number;
  readonly to: number;
}

/** The text, and what can be said of its parts. */
class UriText {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  of({ from, to }: Part): string {
    return this.#text.slice(from, to);
  }

  bad({ from }: Part, why: string): TransportError {
    return new TransportError(
      'address',
      `'${printableText(this.#text)}' is bad at character ${from + 1}: ${printableText(why)}`,
    );
  }

  /** What stands before and behind the first `separator`; without one there is nothing behind. */
  cut(part: Part, separator: string): readonly [Part, Part | undefined] {
    const at = this.of(part).indexOf(separator);
    if (at < 0) return [part, undefined];
    const from = part.from + at;
    return [
      { from: part.from, to: from },
      { from: from + separator.length, to: part.to },
    ];
  }

  /** RFC 3986, section 2, but that letters of every language may stand for themselves. */
  checkCharacters(): void {
    const at = this.#text.search(/[\p{Cc}\p{Cf}\p{Z}"<>\\^`{|}#]/u);
    if (at < 0) return;
    const code = encodeURIComponent(String.fromCodePoint(this.#text.codePointAt(at) ?? 0));
    throw this.bad({ from: at, to: at + 1 }, `such a character is written as ${code}`);
  }

  /** The text of a part, its percent signs resolved. */
  decoded(part: Part): string {
    const text = this.of(part);
    const damaged = text.search(/%(?![0-9A-Fa-f]{2})/);
    if (damaged >= 0) {
      throw this.bad(
        { from: part.from + damaged, to: part.to },
        'two hexadecimal digits have to follow a percent sign',
      );
    }
    try {
      return decodeURIComponent(text);
    } catch {
      const percent = part.from + text.indexOf('%');
      throw this.bad({ from: percent, to: part.to }, 'the bytes that percent signs stand for are not UTF-8');
    }
  }
}

function kindOf(uri: UriText, scheme: string): 'tcp' | 'unix' {
  const at = { from: 0, to: scheme.length };
  switch (scheme) {
    case 'nbd':
      return 'tcp';
    case 'nbd+unix':
      return 'unix';
    case 'nbds':
    case 'nbds+unix':
      throw uri.bad(at, `'${scheme}' asks for TLS, which is not supported yet`);
    case 'nbd+vsock':
    case 'nbds+vsock':
      throw uri.bad(at, `'${scheme}' leads to a socket of a virtual machine (AF_VSOCK), which is not supported`);
    default:
      throw uri.bad(at, `the scheme '${scheme}' is unknown; there are nbd and nbd+unix`);
  }
}

function exportNameOf(uri: UriText, path: Part | undefined): string {
  if (path === undefined) return '';
  const name = uri.decoded(path);
  if (name.includes('\0')) throw uri.bad(path, 'the name of an export cannot hold a NUL character');
  const bytes = Buffer.byteLength(name);
  if (bytes > STRING_BYTES_MAX) {
    throw uri.bad(path, `the name of the export has ${bytes} bytes, NBD allows ${STRING_BYTES_MAX}`);
  }
  return name;
}

/** Where the values of the parameters stand; an unknown parameter is an error (uri.md, 'Other NBD URI query parameters'). */
function queryOf(uri: UriText, query: Part | undefined): ReadonlyMap<string, Part> {
  const found = new Map<string, Part>();
  if (query === undefined) return found;
  for (let rest: Part | undefined = query; rest !== undefined; ) {
    const [one, behind] = uri.cut(rest, /[&;]/.exec(uri.of(rest))?.[0] ?? '&');
    rest = behind;
    if (one.from === one.to) continue;
    const [key, value] = uri.cut(one, '=');
    const name = uri.decoded(key);
    if (/^tls-/.test(name)) throw uri.bad(key, `'${name}' is for TLS, which is not supported yet`);
    if (name !== 'socket') throw uri.bad(key, `there is no parameter '${name}', only socket`);
    if (found.has(name)) throw uri.bad(key, `'${name}' is there twice`);
    if (value === undefined) throw uri.bad(key, `'${name}' needs a value`);
    found.set(name, value);
  }
  return found;
}

function unixAddress(uri: UriText, authority: Part, socket: Part | undefined): Address {
  if (authority.from < authority.to) throw uri.bad(authority, 'there can be no host with nbd+unix: write nbd+unix:///');
  if (socket === undefined) throw uri.bad(authority, 'nbd+unix needs the path of a socket: nbd+unix:///?socket=PATH');
  return { kind: 'unix', path: socketPath(uri, socket, uri.decoded(socket)) };
}

function socketPath(uri: UriText, part: Part, path: string): string {
  try {
    return checkUnixName(path);
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw uri.bad(part, error.message);
  }
}

/** `[user@][host][:port]`; without a host it is this machine, as for libnbd. */
function tcpAddress(uri: UriText, authority: Part): Address {
  const [user, behindUser] = uri.cut(authority, '@');
  if (behindUser !== undefined) throw uri.bad(user, 'a user is for TLS, which is not supported yet');
  return hostAndPort(uri, authority, (host) => uri.decoded(host));
}

function hostAndPort(uri: UriText, part: Part, read: (host: Part) => string): Address {
  const bracket = uri.of(part).startsWith('[');
  const [host, behind] = bracket ? ipv6Host(uri, part) : uri.cut(part, ':');
  const port = behind === undefined || behind.from === behind.to ? DEFAULT_PORT : portOf(uri, behind, part, bracket);
  const name = read(host);
  if (bracket && !isIPv6(name)) throw uri.bad(host, `'${name}' is not an IPv6 address`);
  if (name.includes('\0')) throw uri.bad(host, 'the name of a host cannot hold a NUL character');
  return { kind: 'tcp', host: name === '' ? 'localhost' : name, port };
}

function ipv6Host(uri: UriText, part: Part): readonly [Part, Part | undefined] {
  const [host, behind] = uri.cut({ from: part.from + 1, to: part.to }, ']');
  if (behind === undefined) throw uri.bad(part, 'the bracket is not closed');
  if (behind.from === behind.to) return [host, undefined];
  if (!uri.of(behind).startsWith(':')) throw uri.bad(behind, 'only a port can follow an IPv6 address');
  return [host, { from: behind.from + 1, to: behind.to }];
}

function portOf(uri: UriText, port: Part, part: Part, bracket: boolean): number {
  const text = uri.of(port);
  if (!bracket && isIPv6(uri.of(part))) throw uri.bad(part, 'an IPv6 address stands in brackets: [::1]');
  const value = Number(text);
  if (/^[0-9]{1,5}$/.test(text) && value >= 1 && value <= PORT_MAX) return value;
  throw uri.bad(port, `'${text}' is not a port (1 to ${PORT_MAX})`);
}

/** QEMU's: `HOST:PORT` or `unix:PATH`, then perhaps `:exportname=NAME`; nothing in it is escaped. */
function qemuTarget(uri: UriText, part: Part): NbdTarget {
  const [place, name] = uri.cut(part, ':exportname=');
  const exportName = name === undefined ? '' : uri.of(name);
  if (Buffer.byteLength(exportName) > STRING_BYTES_MAX || exportName.includes('\0')) {
    throw uri.bad(name ?? part, `the name of an export has at most ${STRING_BYTES_MAX} bytes, and no NUL character`);
  }
  if (uri.of(place).startsWith('unix:')) {
    const path = { from: place.from + 5, to: place.to };
    return { address: { kind: 'unix', path: socketPath(uri, path, uri.of(path)) }, exportName };
  }
  if (!/^(\[[^\]]*\]|[^:]+):./.test(uri.of(place))) {
    throw uri.bad(place, 'there should be nbd://HOST, or HOST:PORT or unix:PATH');
  }
  return { address: hostAndPort(uri, place, (host) => uri.of(host)), exportName };
}
