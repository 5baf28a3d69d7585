#!/bin/sh
# Runs in the guest: runs an attach command again and again, killed at the first, second … call of one kind, until it
# attaches; each run is the next attach after a kill. Prints a line `CALL N OUTCOME` a run.
# Usage: kill-at-each-call.sh CALL DETACH COMMAND…  (CALL 'write-open': openat for writing; DETACH: a command that detaches)
call=$1
detach=$2
shift 2
folder=$(mktemp -d)
runs_max=80

is_free() { ! test -e /sys/block/nbd0/pid && test "$(cat /sys/block/nbd0/size)" = 0; }
within() { # within TENTHS COMMAND…
  tenths=$1
  shift
  while ! "$@"; do
    tenths=$((tenths - 1))
    [ "$tenths" -gt 0 ] || return 1
    sleep 0.1
  done
}
ended() { ! kill -0 "$tracer" 2>/dev/null; }
is_attached() { grep -qE 'connected to|sz=[0-9]+ bytes' "$folder/out" && test -e /run/tsnbd/nbd0.json; }
settled() { ended || is_attached; }
leftovers() {
  within 600 is_free || echo busy
  ls -A /run/tsnbd 2>/dev/null | grep -vxE 'nbd0\.(json|json\.new|sock)'
  pgrep -x node | sed 's/^/process /'
}

# One run under strace with the given options; sets outcome.
attempt() {
  : >"$folder/out"
  strace -f -qq "$@" >"$folder/out" 2>&1 </dev/null &
  tracer=$!
  within 3000 settled || outcome=hangs
  if is_attached; then
    outcome=attached
    # A kill may also come at one of the calls that detaching makes.
    sh -c "$detach" >"$folder/detach" 2>&1 || outcome=killed
    within 1200 ended || outcome="does not end: $(cat "$folder/detach")"
  elif ended; then
    outcome=killed
  fi
  left=$(leftovers | tr '\n' ' ')
  [ -z "$left" ] || outcome="$outcome, left: $left"
}

if [ "$call" = write-open ]; then
  attempt -o "$folder/calls" -e trace=openat "$@"
  echo "write-open 0 $outcome"
  main=$(head -n 1 "$folder/calls" | cut -d ' ' -f 1)
  grep "^$main .*openat(" "$folder/calls" | grep -nE 'O_WRONLY|O_RDWR' | cut -d : -f 1 >"$folder/numbers"
  while read -r n; do
    attempt -o /dev/null -e trace=openat -e "inject=openat:signal=SIGKILL:when=$n" "$@"
    echo "write-open $n $outcome"
  done <"$folder/numbers"
  attempt -o /dev/null -e trace=none "$@"
  echo "write-open after $outcome"
  exit
fi

n=1
while [ "$n" -le "$runs_max" ]; do
  attempt -o /dev/null -e "trace=$call" -e "inject=$call:signal=SIGKILL:when=$n" "$@"
  echo "$call $n $outcome"
  case $outcome in killed) ;; *) break ;; esac
  n=$((n + 1))
done
