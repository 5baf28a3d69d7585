import { completedCommand } from './completed-command.js';
import { bashCompletion } from './completion-bash.js';
import { fishCompletion } from './completion-fish.js';
import { zshCompletion } from './completion-zsh.js';
import type { Program } from './option-table.js';
import type { Shell } from './shells.js';

/** For each shell the script that completes the command lines of `programs`; made by scripts/completion.js. */
export function completionScripts(programs: readonly Program[]): Readonly<Record<Shell, string>> {
  const commands = programs.map(completedCommand);
  return { bash: bashCompletion(commands), zsh: zshCompletion(commands), fish: fishCompletion(commands) };
}
