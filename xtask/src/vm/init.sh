#!/vm/bin/sh
# The guest's first process: brings up what the programs expect of a host, runs /vm/command, and hands its exit status
# and the files in /vm/out to the host over virtio ports. It needs nothing but busybox.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/vm/bin HOME=/root TERM=${TERM:-linux}

# Container engines pivot_root, which the kernel refuses to whoever's root is the initial one: from here on it is a mount.
if [ ! -e /vm/root ]; then
    mkdir /vm/root
    mount --bind / /vm/root
    cd /vm/root && mount --move . / && exec chroot . /init
fi

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /tmp /root /vm/out /var
ln -s /run /var/run
ln -s /tmp /var/tmp
mount -t devpts devpts /dev/pts
for at in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $at; done
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd

for module in virtio_pci virtio_console virtio_rng; do modprobe $module; done
port() {
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(cat "$name")" = "$1" ] && name=${name%/name} && echo /dev/"${name##*/}"
    done
}
tries=100
until [ -n "$(port status)" ] || [ $tries = 0 ]; do usleep 50000; tries=$((tries - 1)); done

# As many files as a service gets: the first process of a kernel may open 1024.
ulimit -n 524288
ip link set lo up
hostname vm
echo started >"$(port status)"
if [ -e /vm/shell ]; then
    stty -F /dev/hvc0 sane $(cat /vm/shell)
    setsid -c /vm/command <>/dev/hvc0 >&0 2>&0
else
    /vm/command </dev/null >"$(port stdout)" 2>"$(port stderr)"
fi
status=$?
tar -C /vm/out -cf "$(port files)" . || echo "the files of XTCP_VM_OUT could not be handed out" >"$(port stderr)"
echo "exit $status" >"$(port status)"
poweroff -f
