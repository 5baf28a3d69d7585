import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface SourceFile {
  /** Relative to the project's root: 'src/base/undo.ts'. */
  readonly path: string;
  readonly text: string;
  readonly lines: number;
  /** Specifiers of every import and export … from. */
  readonly imports: readonly string[];
}

/** Every TypeScript and JavaScript file below `folder`. */
export function sourceFiles(folder: string): SourceFile[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.[tj]s$/.test(entry.name))
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      const text = readFileSync(path, 'utf8');
      const imports = [
        ...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gms),
      ];
      return {
        path: relative(ROOT, path),
        text,
        lines: text.split('\n').length - 1,
        imports: imports.map((match) => match[1] ?? match[2] ?? match[3] ?? ''),
      };
    });
}
