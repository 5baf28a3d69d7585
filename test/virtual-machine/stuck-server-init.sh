#!/bin/busybox sh
# The first program of a virtual machine: a device whose server is stopped, with its socket full, and whose own process is then
# killed. Says how its detach ended, and whether generic netlink still answers. User-Mode Linux cannot end sockets from outside.
. /begin.sh

truncate -s 128M /tmp/disk /tmp/other
client() { node /tsnbd/dist/tsnbd-client.js "$@"; }
serve() { exec node /tsnbd/dist/tsnbd.js -t -e 0 -f raw --bind=127.0.0.1 --port="$1" "$2"; }
serve 10809 /tmp/disk &
server=$!
serve 10810 /tmp/other &
until [ "$(ss -tlnH | grep -c ':108')" = 2 ]; do sleep 1; done
client 127.0.0.1 10809 /dev/nbd0 --kernel-api=netlink
client 127.0.0.1 10810 /dev/nbd1 --kernel-api=netlink

# The connection that is stuck is the second one of the device.
port() { ss -tnH state established dport = :10809 | awk '{ print $3 }'; }
first=$(port)
kill -KILL $server
serve 10809 /tmp/disk &
server=$!
until [ -n "$(port)" ] && [ "$(port)" != "$first" ]; do sleep 1; done
dd if=/dev/nbd0 of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null

kill -STOP $server
dd if=/dev/zero of=/dev/nbd0 bs=64M count=1 oflag=direct 2>/dev/null &
# One by which our process just asked whether the server answers, and which its end closes, has next to nothing to send.
full() { ss -tnH dport = :10809 | awk '$3 > 500000 { full++ } END { print full + 0 }'; }
until [ "$(full)" != 0 ]; do sleep 1; done
kill -KILL "$(sed 's/.*"pid":\([0-9]*\).*/\1/' /run/tsnbd/nbd0.json)"
client -d /dev/nbd0 --force 2>&1
echo "detached with $?, size $(cat /sys/block/nbd0/size), full connections $(full)"
client -d /dev/nbd1
echo "the other with $?"
poweroff -f
