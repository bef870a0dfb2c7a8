#!/usr/bin/env bash
# A real systemd as process 1 of a private box: its own processes, mounts, network, cgroups and host name, over
# a copy of this system's files that is forgotten with it. Nothing outside is touched. Needs root.
#
# usage: box.sh DIRECTORY   runs until systemd ends, or this script is killed; DIRECTORY must be empty
#
# Prints "box PID" (of its process 1, as seen from here) once it is on its way; reach it with nsenter.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

# --- outside: a cgroup of its own, and namespaces ---
if [ "${1:?usage: box.sh DIRECTORY}" != --inside ]; then
    directory=$(realpath "$1")
    for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [ -e "$hierarchy/cgroup.procs" ] && [ -e "$hierarchy/cgroup.controllers" ] && break
    done
    group=$hierarchy/anyworker-box-$$
    mkdir "$group"
    echo $$ >"$group/cgroup.procs"
    # Killed at once, whatever happens here: all of the box is below its process 1.
    unshare --fork --kill-child --pid --mount --net --cgroup --uts --ipc --propagation private \
        "$0" --inside "$directory" &
    child=$!
    trap 'kill -9 "$child" 2>/dev/null' TERM INT
    pid=
    while kill -0 "$child" 2>/dev/null && [ -z "$pid" ]; do
        pid=$(cat "/proc/$child/task/$child/children" 2>/dev/null || true)
    done
    echo "box ${pid%% *}"
    wait "$child" || true
    wait "$child" 2>/dev/null || true
    echo $$ >"$hierarchy/cgroup.procs"
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || say "left behind: $group"
    exit
fi

# --- inside: file systems, then systemd ---
directory=$2
mount -t tmpfs -o size=2g,mode=755 tmpfs "$directory"
mkdir "$directory"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
cd "$directory/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t cgroup2 cgroup2 sys/fs/cgroup
ip link set lo up
hostname box
echo box >etc/hostname
# What belongs to the machine, and not to the box.
for unit in systemd-udevd systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-sysctl systemd-modules-load \
    systemd-timesyncd systemd-networkd systemd-resolved systemd-firstboot; do
    ln -sf /dev/null "etc/systemd/system/${unit%.*}.${unit##*.}" 2>/dev/null || true
done
rm -f etc/machine-id
systemd-id128 new >etc/machine-id 2>/dev/null || tr -d - <proc/sys/kernel/random/uuid >etc/machine-id
exec chroot . /usr/bin/env -i container=lxc PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
