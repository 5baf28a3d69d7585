import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

// Small files and folders of /proc and /sys. What they tell of may be gone a moment later (a process, a device, a module):
// then there is nothing to tell, and that is the answer.

export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

export function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

export function listFolder(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
