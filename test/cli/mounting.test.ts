import { writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { inMountOptions } from '#tsnbd/cli/mounting.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../image/temporary-folder.js';

const inFolder = useTemporaryFolder();

it('advice to name the format of an image is given as an option of mount', () => {
  const path = inFolder('disk -f raw');
  writeFileSync(path, Buffer.alloc(4096, 0x55));
  const opened = openImage(path, { format: undefined, readOnly: false });
  opened.close();
  expect(opened.notices.map(inMountOptions)).toEqual([
    `${path} is taken for raw, and writes that would make it look like another format are refused; say format=raw if it is`,
  ]);
  writeFileSync(path, Buffer.concat([Buffer.from('QED\0', 'latin1'), Buffer.alloc(508)]));
  let said = '';
  try {
    openImage(path, { format: undefined, readOnly: false });
  } catch (error) {
    said = inMountOptions((error as Error).message);
  }
  expect(said).toContain("use format=raw if its bytes really are the disk's");
});
