import { UsageError } from './errors.js';

/** A line of /etc/nbdtab: `device host export [options]`, as nbd-client reads it (nbdtab(5)). */
export interface NbdtabLine {
  /** A host, with `unix` the path of a socket. */
  readonly host: string;
  readonly exportName: string;
  /** In their order: 'port' with '10809', 'persist' with undefined. */
  readonly options: readonly NbdtabOption[];
}

export interface NbdtabOption {
  readonly name: string;
  readonly value: string | undefined;
}

const DEVICE = /^(\/dev\/)?(nbd[0-9]+)$/;

/**
 * The line of a device, 'nbd0'. Taken is more than nbd-client takes: blanks around a line, behind a comma and before a
 * comment, a number sign that begins a comment anywhere, `""` for the empty name; and a bad line spoils its device only.
 *
 * @throws UsageError when the line makes no sense, or there are two of it
 */
export function nbdtabLine(text: string, device: string): NbdtabLine | undefined {
  const lines = text.split('\n').flatMap((line, index) => {
    const words = line
      .replace(/(^|[ \t])#.*$/, '')
      .replaceAll(/,[ \t]+/g, ',')
      .split(/[ \t]+/)
      .filter((word) => word !== '');
    return DEVICE.exec(words[0] ?? '')?.[2] === device ? [{ words, number: index + 1 }] : [];
  });
  const [found, second] = lines;
  if (found === undefined) return undefined;
  const bad = (number: number, why: string) => new UsageError(`/etc/nbdtab, line ${number}: ${why}`);
  if (second !== undefined) throw bad(second.number, `${device} has a line already, ${found.number}`);
  const [, host, exportName, options = '', more] = found.words;
  if (host === undefined || exportName === undefined)
    throw bad(found.number, 'there should be: DEVICE HOST EXPORT [OPTIONS]');
  if (more !== undefined) throw bad(found.number, `'${more}' is one word too many`);
  return {
    host,
    exportName: exportName === '""' ? '' : exportName,
    options: options
      .split(',')
      .filter((option) => option !== '')
      .map((option) => {
        const at = option.indexOf('=');
        return at < 0 ? { name: option, value: undefined } : { name: option.slice(0, at), value: option.slice(at + 1) };
      }),
  };
}
