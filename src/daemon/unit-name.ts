/**
 * The name of the mount unit of a folder, as systemd.mount(5) and systemd.unit(5) ("String escaping") make it:
 * 'mnt-test1.mount' of '/mnt/test1'. The path is absolute and has no '.' and '..' in it.
 */
export function mountUnit(folder: string): string {
  return `${escapedPath(folder)}.mount`;
}

/** 'mnt-my\x20disk' of '/mnt/my disk'; the root is '-'. */
export function escapedPath(folder: string): string {
  const words = folder.split('/').filter((word) => word !== '');
  if (words.length === 0) return '-';
  const bytes = Buffer.from(words.join('/'));
  return [...bytes]
    .map((byte, index) => {
      const character = String.fromCharCode(byte);
      if (character === '/') return '-';
      const isPlain = /[A-Za-z0-9:_]/.test(character) || (character === '.' && index > 0);
      return isPlain ? character : `\\x${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}
