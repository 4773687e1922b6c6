#!/bin/bash
# The documentation in a clean Debian 12, word for word: machine.sh WAY [ROOT.tar]
# WAY is deb, cmake or pip, a way of docs/quickstart.md, or script, the one that README.md begins with (follow.py). The root is made by
# mmdebstrap, or unpacked from an archive of one; it has the tree as it is checked in, and is thrown away. Needs root, the network and
# minutes. Prints every command and what it printed.
set -eu
way=$1
archive=${2:-}
page=docs/quickstart.md
[ "$way" != script ] || page=README.md
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

if [ -n "$archive" ]; then
    tar -C "$root" --exclude='./dev/*' -xf "$archive"
    [ -c "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
    [ -c "$root/dev/urandom" ] || mknod -m 666 "$root/dev/urandom" c 1 9
else
    mmdebstrap -q --variant=minbase bookworm "$root"
fi
mkdir "$root/tree"
git -C "$here/../.." archive HEAD | tar -C "$root/tree" -x
# What this machine's network asks for; nobody is there to answer apt. The certificates lie where no package puts its own.
certificates=/etc/ssl/certs/ca-certificates.crt
cp /etc/resolv.conf "$root/etc/resolv.conf"
settings=()
if [ -e $certificates ]; then
    cp $certificates "$root/network.crt"
    settings=(PIP_CERT=/network.crt SSL_CERT_FILE=/network.crt)
fi
echo 'APT::Get::Assume-Yes "true"; APT::Install-Recommends "false"; Dpkg::Use-Pty "false"; quiet "2";' >"$root/etc/apt/apt.conf.d/90nobody"
python3 "$here/follow.py" $page "$way" >"$root/tree/follow"
chroot "$root" env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    "${settings[@]}" bash -c 'cd /tree && exec bash follow' 2>&1 |
    grep --line-buffered -vE '^(Selecting|Preparing|Unpacking|Setting up|\(Reading)'
status=${PIPESTATUS[0]}
[ "$status" = 0 ] && echo "machine: $page followed word for word in Debian $(cat "$root/etc/debian_version"), way $way"
exit "$status"
