import { MountError } from './errors.js';

/** An option of a mount as it stands in a list: 'ro', or 'partition=2' with a value. */
export interface ListedOption {
  /** As it was written, quotes and all. */
  readonly text: string;
  readonly name: string;
  /** Without the quotes around it. */
  readonly value: string | undefined;
}

const LIST_BYTES_MAX = 4_096;

/**
 * The options of a list as fstab(5) and mount(8) -o write it: commas between them, but not between double quotes. A control
 * character is refused: there is no option that has one, and a table of mounts that it would not break.
 *
 * @throws MountError 'usage'
 */
export function listedOptions(list: string): readonly ListedOption[] {
  if (Buffer.byteLength(list) > LIST_BYTES_MAX)
    throw new MountError('usage', `options of more than ${LIST_BYTES_MAX} bytes`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  if (/[\x00-\x1f\x7f]/.test(list)) throw new MountError('usage', 'the options hold a control character');
  if ((list.split('"').length - 1) % 2 === 1) throw new MountError('usage', 'a quote in the options is not closed');
  const texts = list.match(/(?:"[^"]*"|[^",])+/g) ?? [];
  return texts.map((text) => {
    const at = text.indexOf('=');
    const value = at < 0 ? undefined : text.slice(at + 1);
    return { text, name: at < 0 ? text : text.slice(0, at), value: value?.replace(/^"([^"]*)"$/, '$1') };
  });
}
