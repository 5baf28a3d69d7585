# What the first program of a machine begins with that is to have our programs (bootTsnbd): file systems, loopback, modules.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/local/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ip link set lo up
insmod /nbd.ko nbds_max=2
insmod /inet_diag.ko && insmod /tcp_diag.ko # for what ss tells of a connection, and ends
