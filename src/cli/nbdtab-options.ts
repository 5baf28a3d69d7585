import { about, UsageError } from './errors.js';
import { type NbdtabLine, nbdtabLine } from './nbdtab.js';
import { blockSizeBytes, connectionCount, patienceSeconds, portNumber, timeoutSeconds } from './option-values.js';

/** What the options of a line in nbdtab say, in the words of the command line. */
export interface NbdtabSettings {
  readonly port: number | undefined;
  readonly unix: boolean;
  readonly persist: boolean;
  readonly swap: boolean;
  /** The way of older clients to ask for the export. */
  readonly noOptgo: boolean;
  readonly blockSizeBytes: number | undefined;
  readonly timeoutSeconds: number | undefined;
  readonly deadTimeoutSeconds: number | undefined;
  readonly connections: number | undefined;
  /** Names of options that nobody knows: nbd-client tells them and goes on. */
  readonly unknown: readonly string[];
}

const WITH_VALUE = {
  port: portNumber,
  bs: blockSizeBytes,
  timeout: timeoutSeconds,
  'dead-timeout': patienceSeconds,
  conns: connectionCount,
} as const;

/** What nbd-client has, and cannot be done here: better no device than another one than was asked for. */
const REFUSED: Readonly<Record<string, string>> = {
  certfile: 'TLS is not supported yet',
  keyfile: 'TLS is not supported yet',
  cacertfile: 'TLS is not supported yet',
  tlshostname: 'TLS is not supported yet',
  priority: 'TLS is not supported yet',
  tls: 'TLS is not supported yet',
  preinit: 'it needs a size, which nobody tells here: use --preinit and --size on a command line',
  sdp: 'the Sockets Direct Protocol is not supported',
};

/** @throws UsageError for a value that makes no sense, and for what cannot be done */
export function nbdtabSettings({ options }: NbdtabLine): NbdtabSettings {
  const values: { -readonly [Name in keyof typeof WITH_VALUE]?: number } = {};
  const flags = new Set<string>();
  const unknown: string[] = [];
  for (const { name, value } of options) {
    if (name.startsWith('_')) continue; // for other programs, as _netdev: nbdtab(5)
    const refused = Object.hasOwn(REFUSED, name) ? REFUSED[name] : undefined;
    if (refused !== undefined) throw new UsageError(`/etc/nbdtab, option ${name}: ${refused}`);
    if (Object.hasOwn(WITH_VALUE, name)) {
      const known = name as keyof typeof WITH_VALUE;
      values[known] = about(`/etc/nbdtab, option ${name}`, () => {
        if (value === undefined) throw new UsageError('it needs a value');
        return WITH_VALUE[known](value);
      });
    } else if (value === undefined) flags.add(name);
    else unknown.push(name);
  }
  for (const flag of flags) if (!['persist', 'swap', 'unix', 'no_optgo'].includes(flag)) unknown.push(flag);
  return {
    port: values.port,
    unix: flags.has('unix'),
    persist: flags.has('persist'),
    swap: flags.has('swap'),
    noOptgo: flags.has('no_optgo'),
    blockSizeBytes: values.bs,
    timeoutSeconds: values.timeout,
    deadTimeoutSeconds: values['dead-timeout'],
    connections: values.conns,
    unknown,
  };
}

/**
 * What the line of a device says, as if it were a command line: values of options, and operands.
 *
 * @throws UsageError when there is no such line
 */
export function nbdtabSays(text: string, device: string, calledAs: string) {
  const line = nbdtabLine(text, device);
  if (line === undefined) throw new UsageError(`DEV: ${device} is alone, and has no line in /etc/nbdtab`);
  const { port, unix, persist, swap, noOptgo, connections, unknown, ...settings } = nbdtabSettings(line);
  const { blockSizeBytes: blockSize, timeoutSeconds: timeout, deadTimeoutSeconds: deadTimeout } = settings;
  return {
    values: {
      name: line.exportName,
      ...(unix ? { unix } : {}),
      ...(swap ? { swap } : {}),
      ...(noOptgo ? { 'no-optgo': noOptgo } : {}),
      ...(persist && calledAs === 'nbd-client' ? { persist } : {}),
      ...(blockSize === undefined ? {} : { 'block-size': blockSize }),
      ...(timeout === undefined ? {} : { timeout }),
      ...(deadTimeout === undefined ? {} : { 'dead-timeout': deadTimeout }),
      ...(connections === undefined ? {} : { connections }),
    },
    words: [line.host, ...(port === undefined ? [] : [String(port)]), device],
    notices: unknown.map((option) => `/etc/nbdtab: the option ${option} of ${device} is unknown`),
  };
}
