/** How much of the beginning and of the end of an image says what format it has. */
export const MAGIC_BYTES = 512;

interface Magic {
  readonly format: string;
  /** Counted from the start of the image; negative: from its end. */
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

/**
 * The first bytes of the formats that qemu-img and other tools write. What may well lie on a disk itself (a partition
 * table, a file system, a boot sector) is none of them.
 */
const MAGICS: readonly Magic[] = [
  magic('qcow', 0, 'QFI\xfb\0\0\0\x01'), // version 1; all later ones are called qcow2
  magic('qcow2', 0, 'QFI\xfb'),
  magic('qed', 0, 'QED\0'),
  magic('vmdk', 0, 'KDMV'),
  magic('vmdk', 0, 'COWD'),
  magic('vmdk', 0, '# Disk DescriptorFile'),
  magic('vdi', 0x40, '\x7f\x10\xda\xbe'),
  magic('vhdx', 0, 'vhdxfile'),
  magic('vhd', 0, 'conectix'), // of variable size: a copy of the footer
  magic('vhd', -512, 'conectix'), // of fixed size: the footer alone
  magic('parallels', 0, 'WithoutFreeSpace'),
  magic('parallels', 0, 'WithouFreSpacExt'),
  magic('luks', 0, 'LUKS\xba\xbe'),
  magic('bochs', 0, 'Bochs Virtual HD Image'),
  magic('cloop', 0, '#!/bin/sh\n#V2.0 Format\n'),
  magic('dmg', -512, 'koly'),
];

/**
 * The name of the format that the first (`head`) or the last (`tail`) MAGIC_BYTES of an image belong to; absent when they
 * look like those of a disk. An image that is shorter has a shorter head, and no tail.
 */
export function foreignFormat(head: Uint8Array, tail: Uint8Array): string | undefined {
  return MAGICS.find(({ offsetBytes, bytes }) => {
    const [part, at] = offsetBytes < 0 ? [tail, offsetBytes + MAGIC_BYTES] : [head, offsetBytes];
    return part.length >= at + bytes.length && bytes.every((byte, index) => part[at + index] === byte);
  })?.format;
}

function magic(format: string, offsetBytes: number, text: string): Magic {
  return { format, offsetBytes, bytes: Buffer.from(text, 'latin1') };
}
