import type { ExportDescription } from '../attach/query.js';
import { FLAG_NAMES, flagNames } from './export-report.js';
import { oneOf } from './option-values.js';

/** What can be asked of an export with yes or no, by nbdinfo's words. */
const QUESTIONS: ReadonlyMap<string, (description: ExportDescription) => boolean> = new Map([
  ['connect', () => true], // where it is not so there is no description, but an error
  ['read', () => true],
  ['write', ({ info }) => !flagNames(info.flags).includes('is_read_only')],
  ['tls', () => false],
  ['structured-reply', ({ replyStyle }) => replyStyle !== 'simple'],
  ['extended-headers', ({ replyStyle }) => replyStyle === 'extended'],
  ...FLAG_NAMES.map((name) => [
    wordOfFlag(name),
    ({ info }: ExportDescription) => flagNames(info.flags).includes(name),
  ]),
] as [string, (description: ExportDescription) => boolean][]);

/** nbdinfo's other words for some of them, as `plain` leaves them. */
const ALSO_CALLED: ReadonlyMap<string, string> = new Map([
  ['sr', 'structured-reply'],
  ['structured', 'structured-reply'],
  ['structuredreplies', 'structured-reply'],
  ['eh', 'extended-headers'],
  ['extendedheader', 'extended-headers'],
]);

const WORDS = [...QUESTIONS.keys()];

/** The question that `text` is a word for; capitals, dashes, underscores and blanks in it do not count, as for nbdinfo. */
export const exportQuestion = Object.assign(
  (text: string): string => {
    const wanted = plain(text);
    return ALSO_CALLED.get(wanted) ?? WORDS.find((word) => plain(word) === wanted) ?? oneOf(text, WORDS, 'a question');
  },
  { words: WORDS },
);

/** The answer to a question that `exportQuestion` has read. */
export function isSo(question: string, description: ExportDescription): boolean {
  return QUESTIONS.get(question)?.(description) ?? false;
}

/** 'fast-zero' of 'can_fast_zero'. */
function wordOfFlag(name: string): string {
  return name.replace(/^(is|can)_/, '').replaceAll('_', '-');
}

function plain(text: string): string {
  return text.toLowerCase().replace(/[ _-]/g, '');
}
