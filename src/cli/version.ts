import { createRequire } from 'node:module';

/** "tsnbd 0.1.0": from package.json, which the package exports to itself wherever its code lies. */
export function versionText(program: string): string {
  const { version } = createRequire(import.meta.filename)('tsnbd/package.json') as { version: string };
  return `${program} ${version}`;
}
