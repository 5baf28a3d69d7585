#!/bin/busybox sh
# The first program of a virtual machine with two processors: attaches an export of a server in it by two connections, and has
# each processor read and write half of it. Says what each connection carried, and whether all is where it belongs.
. /begin.sh

head -c 8388608 /dev/urandom >/tmp/disk
head -c 8388608 /dev/urandom >/tmp/new
cp /tmp/disk /tmp/old
node /tsnbd/dist/tsnbd.js -t -e 0 -f raw --bind=127.0.0.1 --port=10809 /tmp/disk &
until ss -tlnH | grep -q :10809; do sleep 1; done
node /tsnbd/dist/tsnbd-client.js 127.0.0.1 10809 /dev/nbd0 -C 2 --kernel-api=netlink
echo "queues $(ls /sys/block/nbd0/mq | wc -l)"

on_both() {
  for processor in 0 1; do
    taskset $((processor + 1)) dd bs=64k count=64 skip=$((processor * 64)) seek=$((processor * 64)) "$@" 2>/dev/null &
    pids="$pids $!"
  done
  wait $pids
  pids=
}
on_both if=/dev/nbd0 of=/tmp/read conv=notrunc iflag=direct
on_both if=/tmp/new of=/dev/nbd0 conv=notrunc oflag=direct
carried() { ss -tniH dport = :10809 | grep -o "$1:[0-9]*" | cut -d : -f 2 | tr '\n' ' '; }
echo "received $(carried bytes_received)sent $(carried bytes_sent)" | sed 's/ $//'
node /tsnbd/dist/tsnbd-client.js -d /dev/nbd0
if cmp /tmp/read /tmp/old && cmp /tmp/disk /tmp/new; then echo 'the disk is right'; else echo 'the disk is wrong'; fi
poweroff -f
