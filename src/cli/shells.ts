export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** The file with the completion of `shell`, beside the programs in dist/. */
export function completionFile(shell: Shell): string {
  return `completion.${shell}`;
}
