/** A word of sh, and of zsh, that stands for exactly this text. */
export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
