/** What `foreignFormat` looks at: so many bytes from the start and from the end of a file, or all of a smaller one. */
export const PROBE_BYTES = 512;

interface Magic {
  readonly format: string;
  readonly bytes: Buffer;
  /** From the first byte on; absent: 0. */
  readonly offsetBytes?: number;
  /** It stands in the last 512 bytes. */
  readonly inTrailer?: true;
}

/** The formats that qemu-img knows by their first (or last) bytes: QEMU's block/*.c and the vendors' descriptions. */
const MAGICS: readonly Magic[] = [
  { format: 'qcow', bytes: latin1('QFI\xfb\0\0\0\x01') },
  { format: 'qcow2', bytes: latin1('QFI\xfb') },
  { format: 'qed', bytes: latin1('QED\0') },
  { format: 'vmdk', bytes: latin1('KDMV') },
  { format: 'vmdk', bytes: latin1('COWD') },
  { format: 'vmdk', bytes: latin1('# Disk DescriptorFile') },
  { format: 'vdi', bytes: latin1('\x7f\x10\xda\xbe'), offsetBytes: 64 },
  { format: 'vhdx', bytes: latin1('vhdxfile') },
  { format: 'vpc', bytes: latin1('conectix') },
  { format: 'vpc', bytes: latin1('conectix'), inTrailer: true },
  { format: 'parallels', bytes: latin1('WithoutFreeSpace') },
  { format: 'parallels', bytes: latin1('WithouFreSpacExt') },
  { format: 'luks', bytes: latin1('LUKS\xba\xbe') },
  { format: 'dmg', bytes: latin1('koly'), inTrailer: true },
];

/** The format, other than raw, that a file with these first and last bytes has; absent if nothing speaks for one. */
export function foreignFormat(head: Buffer, trailer: Buffer): string | undefined {
  return MAGICS.find(({ bytes, offsetBytes = 0, inTrailer }) => {
    const place = inTrailer ? trailer : head;
    return place.subarray(offsetBytes, offsetBytes + bytes.length).equals(bytes);
  })?.format;
}

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
