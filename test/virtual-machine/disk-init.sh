#!/bin/busybox sh
# The first program of the virtual machine. On a new disk it writes files until somebody kills the machine, and says each time
# what is on stable storage; on one that has files it says how many of them are whole, and shuts down.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
if [ -e /sums ]; then
  cd /data
  echo "found $(md5sum -c /sums 2>/dev/null | grep -c OK) whole"
  sync
  mount -o remount,ro /
  poweroff -f
fi
for number in $(seq 100000); do
  head -c $((number % 7 * 10000 + 100)) /dev/urandom >/data/$number
  cd /data && md5sum $number >>/sums
  sync
  echo "written $number"
done
