#!/usr/bin/env bash
# A real systemd as process 1 of a private box: its own processes, mounts, network, cgroups and host name, over
# a copy of this system's files that is forgotten with it. Nothing outside is touched. Needs root.
#
# usage: box.sh DIRECTORY   DIRECTORY must be empty; the box is there until standard input is closed
#
# Prints the number of its process 1, as seen from here, once it is on its way; reach it with nsenter --all.
set -euo pipefail

if [ "${1:?usage: box.sh DIRECTORY}" != --inside ]; then
    # --- outside: a cgroup of its own, and namespaces ---
    directory=$(realpath "$1")
    hierarchy=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
    home=$hierarchy$(sed -n 's/^0:://p' /proc/self/cgroup)
    group=$home/anyworker-box-$$
    mkdir "$group"
    echo $$ >"$group/cgroup.procs"
    setpriv --pdeathsig KILL \
        unshare --fork --kill-child --pid --mount --net --cgroup --uts --ipc --propagation private \
        "$0" --inside "$directory" </dev/null &
    outer=$!
    inner=
    while [ -z "$inner" ] && kill -0 "$outer" 2>/dev/null; do
        inner=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null || true)
    done
    echo $inner
    cat >/dev/null
    # All of it ends with its process 1.
    kill -KILL $inner 2>/dev/null || true
    wait "$outer" 2>/dev/null || true
    echo $$ >"$home/cgroup.procs"
    find "$group" -depth -type d -exec rmdir {} \;
    exit
fi

# --- inside: file systems, then systemd ---
directory=$2
mount -t tmpfs -o mode=755 tmpfs "$directory"
mkdir "$directory"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
cd "$directory/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
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
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
hostname box
systemd-id128 new >etc/machine-id
# Not chroot: no process can make user namespaces in one, and PrivateUsers= does.
mkdir old
pivot_root . old
umount --lazy old
exec env -i container=lxc PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=no >/dev/null 2>&1
