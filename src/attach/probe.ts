import { firstLine, runProgram } from '../kernel/run-program.js';
import { AttachError } from './errors.js';

/** What blkid finds on a device or a partition ('nbd0p1'); what is not there is absent. */
export interface FoundContent {
  readonly device: string;
  /** As mount takes it: 'ext4'. */
  readonly type: string | undefined;
  readonly label: string | undefined;
  readonly uuid: string | undefined;
  readonly partitionLabel: string | undefined;
  readonly partitionUuid: string | undefined;
  /** The kind of its partition table: 'gpt'. */
  readonly partitionTable: string | undefined;
}

/** blkid reads from the device: so long a server has to answer. */
const PROBE_LIMIT_MS = 20_000;

/** Looks at the content itself, not at what udev or a cache knew of an earlier use. @throws AttachError 'time-limit', 'system' */
export async function probeFileSystems(devices: readonly string[]): Promise<readonly FoundContent[]> {
  if (devices.length === 0) return [];
  const paths = devices.map((device) => `/dev/${device}`);
  const end = await runProgram('blkid', ['-p', '-o', 'export', ...paths], { limitMs: PROBE_LIMIT_MS });
  if (end.isLate) {
    throw new AttachError(
      'time-limit',
      `the server did not answer in ${PROBE_LIMIT_MS / 1000} s when blkid read ${paths.join(', ')}`,
    );
  }
  // 2: there is nothing that it knows, or (8) several things at once, in which case it says no type.
  if (end.status < 0) throw new AttachError('system', firstLine(end.stderr));
  const values = new Map(end.stdout.split('\n\n').map((block) => valuesOf(block)));
  return devices.map((device) => {
    const found = values.get(`/dev/${device}`);
    return {
      device,
      type: found?.get('TYPE'),
      label: found?.get('LABEL'),
      uuid: found?.get('UUID'),
      partitionLabel: found?.get('PART_ENTRY_NAME'),
      partitionUuid: found?.get('PART_ENTRY_UUID'),
      partitionTable: found?.get('PTTYPE'),
    };
  });
}

/** blkid(8), "--output export": NAME=VALUE lines, what a shell would take for its own behind a backslash. */
function valuesOf(block: string): [string, ReadonlyMap<string, string>] {
  const values = new Map(
    block.split('\n').flatMap((line): [string, string][] => {
      const at = line.indexOf('=');
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1).replaceAll(/\\(.)/g, '$1')]];
    }),
  );
  return [values.get('DEVNAME') ?? '', values];
}
