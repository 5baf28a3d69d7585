#!/bin/sh
# Runs in the guest: runs an attach command again and again, killed at the first, second … call of some kinds, until it
# attaches and detaches without; each run is the next attach after a kill. Prints a line `N OUTCOME` a run.
# Usage: kill-at-each-call.sh LIBRARY CALLS DETACH COMMAND…  (LIBRARY: kill-at-call.c, which says what CALLS are; DETACH: a
# command that detaches)
library=$1
calls=$2
detach=$3
shift 3
folder=$(mktemp -d)
runs_max=1000

is_free() { ! test -e /sys/block/nbd0/pid && read -r sectors </sys/block/nbd0/size && [ "$sectors" = 0 ]; }
within() { # within TENTHS COMMAND…
  tenths=$1
  shift
  while ! "$@"; do
    tenths=$((tenths - 1))
    [ "$tenths" -gt 0 ] || return 1
    sleep 0.1
  done
}
ended() { ! kill -0 "$program" 2>/dev/null; }
is_attached() { test -e /run/tsnbd/nbd0.json && grep -qE 'connected to|sz=[0-9]+ bytes' "$folder/out"; }
no_process() { ! grep -qsx node /proc/[0-9]*/comm; }
is_killed() { test -e "$folder/note"; }
settled() { ended || is_attached; }
# By netlink the kernel keeps the device of a killed process, with our mark: the next attach or detach takes it down.
is_marked() { grep -q '^tsnbd:' /sys/block/nbd0/backend 2>/dev/null; }
is_free_or_marked() { is_free || is_marked; }
leftovers() {
  if is_killed; then within 600 is_free_or_marked || echo busy; else within 600 is_free || echo busy; fi
  ls -A /run/tsnbd 2>/dev/null | grep -vxE 'nbd0\.(json|sock)(\.new)?'
  # What serves a device ends a moment after it has let the device go.
  within 100 no_process || pgrep -x node | sed 's/^/process /'
}

n=1
while [ "$n" -le "$runs_max" ]; do
  rm -f "$folder/note"
  KILL_CALLS=$calls KILL_AT=$n KILL_NOTE=$folder/note LD_PRELOAD="$library ${LD_PRELOAD:-}" "$@" >"$folder/out" 2>&1 </dev/null &
  program=$!
  outcome=
  within 3000 settled || outcome=hangs
  if is_attached; then
    # A kill may also come at one of the calls that detaching makes: then the next attach takes down what is left.
    sh -c "$detach" >"$folder/detach" 2>&1 || is_killed || outcome="does not detach: $(cat "$folder/detach")"
    within 1200 ended || outcome="does not end: $(cat "$folder/detach")"
  fi
  if is_killed; then outcome="killed$outcome"; else outcome="${outcome:-attached}"; fi
  left=$(leftovers | tr '\n' ' ')
  [ -z "$left" ] || outcome="$outcome, left: $left"
  echo "$n $outcome"
  case $outcome in killed) ;; *) break ;; esac
  n=$((n + 1))
done
