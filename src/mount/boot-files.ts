import { shellQuoted } from '../base/shell-quoted.js';
/** A file that is put in its place, the same each time. */
export interface BootFile {
  /** Absolute, below the root that is installed to. */
  readonly path: string;
  readonly text: string;
  readonly mode: number;
}

/** What the files lead to. */
export interface InstalledPrograms {
  /** The interpreter, absolute: mount(8) takes PATH away. */
  readonly node: string;
  /** Where the programs lie: FOLDER/mount-tsnbd.js. */
  readonly folder: string;
  /** The text of each manual page by its name, 'tsnbd.8'. */
  readonly manualPages: ReadonlyMap<string, string>;
  /** The script by which a shell completes command lines, by the shell's name. */
  readonly completions: ReadonlyMap<string, string>;
}

/** Where each shell looks for what an administrator installs; bash and fish want a file of the name of each program. */
const COMPLETION_PATHS: Readonly<Record<string, readonly string[]>> = {
  bash: ['tsnbd', 'tsnbd-client'].map((name) => `/usr/local/share/bash-completion/completions/${name}`),
  zsh: ['/usr/local/share/zsh/site-functions/_tsnbd'],
  fish: ['tsnbd', 'tsnbd-client'].map((name) => `/etc/fish/completions/${name}.fish`),
};

/** How many partitions a device can have, once the module is loaded with it. */
const MAX_PART = 16;

const WRITTEN_BY = 'Written by "tsnbd install"; "tsnbd install --uninstall" removes it.';

/** All that a machine needs to mount lines of fstab of the type tsnbd, by hand and at boot, and what helps who types them. */
export function bootFiles(programs: InstalledPrograms): readonly BootFile[] {
  const text = (path: string, lines: string) => ({ path, text: lines, mode: 0o644 });
  const script = (path: string, lines: string) => ({ path, text: lines, mode: 0o755 });
  return [
    script('/sbin/mount.tsnbd', launcher(programs, 'mount-tsnbd.js')),
    script('/sbin/umount.tsnbd', launcher(programs, 'umount-tsnbd.js')),
    text('/etc/modules-load.d/tsnbd.conf', `# ${WRITTEN_BY}\nnbd\n`),
    text('/etc/modprobe.d/tsnbd.conf', `# ${WRITTEN_BY}\noptions nbd max_part=${MAX_PART}\n`),
    script('/etc/systemd/system-generators/tsnbd-generator', GENERATOR),
    text('/etc/systemd/system/tsnbd@.service', unit(programs)),
    ...[...programs.manualPages].map(([name, page]) => text(`/usr/local/share/man/man8/${name}`, page)),
    ...[...programs.completions].flatMap(([shell, script]) =>
      (COMPLETION_PATHS[shell] ?? []).map((path) => text(path, script)),
    ),
  ];
}

/** The status of an interpreter that is gone is 2, "system error": 126 and 127 of sh say nothing to mount(8). */
function launcher({ node, folder }: InstalledPrograms, program: string): string {
  const [interpreter, script] = [shellQuoted(node), shellQuoted(`${folder}/${program}`)];
  return `#!/bin/sh
# ${WRITTEN_BY}
for file in ${interpreter} ${script}; do
  [ -e "$file" ] || { echo "$0: $file is gone; run: tsnbd install" >&2; exit 2; }
done
exec ${interpreter} ${script} "$@"
`;
}

/**
 * A device of /etc/nbdtab, or of an image, that stays attached without being mounted by us. It is stopped after all that is
 * mounted from the network; what is mounted otherwise holds it up, for it is not detached while it is in use.
 */
function unit({ node, folder }: InstalledPrograms): string {
  const program = (name: string) => inUnit(`${shellQuoted(node)} ${shellQuoted(`${folder}/${name}`)}`);
  const image = `exec ${program('tsnbd.js')} --nofork -c /dev/%i $$OPTIONS`;
  const remote = `exec ${program('tsnbd-client.js')} --nofork %i`;
  return `# ${WRITTEN_BY}
[Unit]
Description=Network block device %i
Documentation=man:tsnbd-client(8) man:tsnbd(8)
DefaultDependencies=no
Wants=modprobe@nbd.service network-online.target remote-fs-pre.target
After=modprobe@nbd.service local-fs.target network.target network-online.target
Before=remote-fs-pre.target shutdown.target
Conflicts=shutdown.target
IgnoreOnIsolate=yes

[Service]
Type=notify
# One line, OPTIONS= and the words that follow tsnbd -c /dev/%i. Without it, the line of %i in /etc/nbdtab.
EnvironmentFile=-/etc/tsnbd/%i.conf
ExecStart=/bin/sh -c "set -f; [ -e /etc/tsnbd/%i.conf ] || ${remote}; ${image}"
KillMode=mixed
SendSIGKILL=no
TimeoutStartSec=60
TimeoutStopSec=60

[Install]
WantedBy=remote-fs.target
`;
}

/** What systemd.service(5) takes for this text inside double quotes. */
function inUnit(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%').replaceAll('$', '$$$$');
}

/**
 * systemd.generator(7). systemd makes a mount unit of each line itself (systemd-fstab-generator(8)); what it does not know of
 * a line of ours goes into a file beside the unit.
 */
const GENERATOR = String.raw`#!/bin/sh
# ${WRITTEN_BY}
# For each line of fstab of the type tsnbd: the module first, a time limit, and what an image lies on.
units=$1
fstab=/etc/fstab
[ -n "$SYSTEMD_FSTAB" ] && fstab=$SYSTEMD_FSTAB
[ -n "$units" ] && [ -r "$fstab" ] || exit 0

# Nothing is there yet to tell it to but the log of the kernel.
tell() { echo "<4>tsnbd-generator: $1" 2>/dev/null >/dev/kmsg; }
# fstab(5): a backslash and three octal digits.
decoded() { printf '%b' "$(printf '%s' "$1" | sed 's/\\\([0-7]\{3\}\)/\\0\1/g')"; }
# systemd.unit(5): in quotes, and a percent sign twice.
word() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g')"; }
# Where a path leads, to what is not mounted yet, too. Process 1 waits for us. In its process group (--foreground) nothing is
# mounted because somebody looks, which would wait for it.
resolved() { timeout --foreground 3 readlink -m -- "$1" 2>/dev/null || printf '%s\n' "$1"; }

unit_of_line() {
  folder=$(decoded "$2") spec=$(decoded "$1")
  # Units are named by what a mount point leads to.
  unit=$(systemd-escape --path --suffix=mount -- "$(resolved "$folder")") || return
  mkdir -p "$units/$unit.d" || return
  {
    echo '# Automatically generated by tsnbd-generator.'
    echo '[Unit]'
    echo 'Wants=modprobe@nbd.service'
    echo 'After=modprobe@nbd.service'
    case $spec in
      nbd:*)
        case ",$3," in
          *,_netdev,*) ;;
          *) tell "$folder: the line has no _netdev, so it is mounted before the network is there" ;;
        esac ;;
      /dev/*) device=$(systemd-escape --path --suffix=device -- "$spec") && echo "Requires=$device" && echo "After=$device" ;;
      /*)
        echo "RequiresMountsFor=$(word "$spec")"
        file=$(resolved "$spec")
        [ "$file" = "$spec" ] || echo "RequiresMountsFor=$(word "$file")" ;;
    esac
    case ",$3," in
      *,x-systemd.mount-timeout=*) ;;
      *,fsck=yes,* | *,fsck=auto,*) printf '[Mount]\nTimeoutSec=1h\n' ;;
      *) printf '[Mount]\nTimeoutSec=90s\n' ;;
    esac
  } >"$units/$unit.d/tsnbd.conf"
}

# swap.target is reached before the network is, so swap on a device of ours belongs to remote-fs.target: noauto,_netdev. By its
# default dependencies it would be before swap.target even so, and what starts the network behind that.
swap_of_line() {
  unit=$(systemd-escape --path --suffix=swap -- "$1") && device=$(basename "$1") || return
  service=tsnbd@$(echo "$device" | sed 's/p[0-9]*$//').service
  mkdir -p "$units/$unit.d" "$units/remote-fs.target.wants" || return
  {
    echo '# Automatically generated by tsnbd-generator.'
    echo '[Unit]'
    echo "Requires=$service"
    echo "After=$service"
    echo 'DefaultDependencies=no'
    echo 'Before=remote-fs.target umount.target'
    echo 'Conflicts=umount.target'
  } >"$units/$unit.d/tsnbd.conf"
  ln -sf "../$unit" "$units/remote-fs.target.wants/$unit"
}

while read -r spec folder type options rest; do
  case $spec in '' | '#'*) continue ;; esac
  case $type in
    tsnbd | tsnbd.*) unit_of_line "$spec" "$folder" "$options" ;;
    swap)
      case "$spec ,$options," in
        /dev/nbd[0-9]*,noauto,*_netdev,* | /dev/nbd[0-9]*,_netdev,*noauto,*) swap_of_line "$spec" ;;
      esac ;;
  esac
done <"$fstab"
exit 0
`;
