#!/bin/bash
# The Debian packages: debs.sh BUILD_DIR WRITE_TINY_MODEL [--root]
# Makes them from the objects of a build, looks at what they have and need (with lintian where it is installed), unpacks them, runs the
# program and builds README.md's programs against what was unpacked. With --root the same by installing them with apt into a clean
# Debian 12 that mmdebstrap makes (needs root, the network and minutes).
set -eu
build=$(cd "$1" && pwd)
write_tiny_model=$2
clean=${3:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

skip() {
    echo "skipped: $*"
    exit 77
}
cache() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
quiet() { "$@" >"$work/log" 2>&1 || { tail -30 "$work/log"; exit 1; }; }

for tool in cpack dpkg-shlibdeps gzip; do command -v $tool >/dev/null || skip "there is no $tool"; done
[ "$(cache CMAKE_GENERATOR)" = Ninja ] || skip "the build was not made with Ninja"
if grep -q 'CMAKE_C_FLAGS:.*-fsanitize' "$build/CMakeCache.txt"; then skip "a sanitized library is not for other programs"; fi

# For the prefix /usr, without CUDA, whose kernels would take minutes; else as the build was. Most of its objects are compiled just so:
# ninja takes them for its own.
quiet cmake -S "$root" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE="$(cache CMAKE_BUILD_TYPE)" -DCMAKE_INSTALL_PREFIX=/usr \
    -DTFINFER_BUILD_TESTS=OFF -DTFINFER_BUILD_EXAMPLES=OFF -DTFINFER_CUDA=OFF -DTFINFER_WERROR="$(cache TFINFER_WERROR)"
(cd "$build" && find src -name '*.o' | tar cf - -T - .ninja_log .ninja_deps) | tar xf - -C "$work/build"
quiet ninja -C "$work/build"
(cd "$work/build" && quiet cpack)
debs=("$work"/build/packages/*.deb)
[ ${#debs[@]} = 3 ] || { echo "not three packages: ${debs[*]}"; exit 1; }

field() { dpkg-deb -f "$work"/build/packages/"$1"_*.deb "$2"; }
has() { # PACKAGE PATH...
    local package=$1 path
    shift
    dpkg-deb -c "$work"/build/packages/"$package"_*.deb | awk '{ print $6 }' >"$work/files"
    for path in "$@"; do grep -qxE "\./usr/$path" "$work/files" || { echo "$package has no /usr/$path"; exit 1; }; done
}
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$work/build/CMakeCache.txt")
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
for package in libtfinfer0 libtfinfer-dev tfinfer; do
    [ "$(field $package Version)" = "$version-1" ] || { echo "$package is not of version $version"; exit 1; }
    has $package "share/doc/$package/(copyright|changelog.gz|changelog.Debian.gz)"
done
has libtfinfer0 "lib/$multiarch/libtfinfer\.so\.0" "lib/$multiarch/libtfinfer\.so\.$version"
has libtfinfer-dev "lib/$multiarch/libtfinfer\.so" "lib/$multiarch/libtfinfer\.a" "lib/$multiarch/libtfinfer_tokenizer\.a" \
    include/tfinfer/tfinfer.h include/tfinfer/tfinfer.hpp "share/man/man3/tfinfer\.3\.gz"
has tfinfer bin/tfinfer "share/man/man1/tfinfer\.1\.gz"
for library in libc6 libdnnl2 libjansson4 libutf8proc2; do
    field libtfinfer0 Depends | grep -q "\b$library\b" || { echo "libtfinfer0 does not depend on $library"; exit 1; }
done
# pkg-config wants these, and the packages that have them must come along.
for module in $(sed -n 's/^Requires.private: //p' "$work/build/tfinfer.pc"); do
    owner=$(dpkg -S "$(pkg-config --variable=pcfiledir "$module")/$module.pc" | cut -d: -f1)
    field libtfinfer-dev Depends | grep -q "\b$owner\b" || { echo "libtfinfer-dev does not depend on $owner, for $module"; exit 1; }
done
field tfinfer Depends | grep -q "libtfinfer0 (= $version-1)" || { echo "tfinfer does not depend on its library"; exit 1; }
echo "packages: $(du -ch "${debs[@]}" | tail -1 | cut -f1), libtfinfer0 depends on $(field libtfinfer0 Depends)"

if command -v lintian >/dev/null; then
    # A first upload to Debian would close a bug; cpack calls ldconfig itself.
    lintian --allow-root "${debs[@]}" 2>/dev/null |
        grep -vE 'initial-upload-closes-no-bugs|maintscript-calls-ldconfig' >"$work/lint" || true
    [ ! -s "$work/lint" ] || { cat "$work/lint"; exit 1; }
    echo "lintian: nothing but that cpack calls ldconfig, and that no bug is closed"
fi

"$write_tiny_model" "$work/model"

if [ "$clean" = --root ]; then
    quiet mmdebstrap --variant=apt bookworm "$work/root"
    mkdir "$work/root/try"
    cp -r "${debs[@]}" "$work/model" "$work/root/try"
    for program in program.c program.cpp; do
        python3 "$root/tests/docs/blocks.py" README.md $program >"$work/root/try/$program"
    done
    cp /etc/resolv.conf "$work/root/etc/resolv.conf"
    cat >"$work/root/try/run" <<'INSIDE'
set -eux
export DEBIAN_FRONTEND=noninteractive
cd /try
apt-get update -q
apt-get install -y -q --no-install-recommends ./tfinfer_*.deb ./libtfinfer0_*.deb
tfinfer --version
tfinfer embed model "the cat sat"
apt-get install -y -q --no-install-recommends ./libtfinfer-dev_*.deb gcc g++ libc6-dev pkgconf
cc program.c $(pkg-config --cflags --libs tfinfer) -o program
./program model
c++ -std=c++17 program.cpp $(pkg-config --cflags --libs tfinfer) -o program++
./program++ model
apt-get remove -y -q libtfinfer0
test ! -e /usr/bin/tfinfer
INSIDE
    if chroot "$work/root" bash /try/run >"$work/log" 2>&1; then
        grep -A1 -E '^\+ (tfinfer|\./program|cc |c\+\+ |apt-get|test )' "$work/log"
        echo "clean Debian $(cat "$work/root/etc/debian_version"): installed with apt, run, compiled against, removed"
    else
        tail -40 "$work/log"
        exit 1
    fi
    exit 0
fi

tree=$work/tree
for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$tree"; done
export LD_LIBRARY_PATH=$tree/usr/lib/$multiarch
[ "$("$tree/usr/bin/tfinfer" --version)" = "tfinfer $version" ] || { echo "the unpacked program tells another version"; exit 1; }
"$tree/usr/bin/tfinfer" embed --json "$work/model" "the cat sat" >"$work/out"
echo "unpacked program: $(cut -c1-60 "$work/out")"
# The file's own paths lead into the tree; those of the other libraries are the system's.
export PKG_CONFIG_PATH=$tree/usr/lib/$multiarch/pkgconfig
compile() { # COMPILER FILE
    python3 "$root/tests/docs/blocks.py" README.md "$2" >"$work/$2"
    # shellcheck disable=SC2046 # flags are split on purpose
    $1 $(pkg-config --cflags tfinfer) "$work/$2" $(pkg-config --libs tfinfer) -o "$work/program"
    ldd "$work/program" | grep -q "$tree/usr/lib/$multiarch/libtfinfer.so.0" ||
        { echo "$2 is not linked with the unpacked library"; exit 1; }
    echo "compiled against the unpacked tree, $2: $("$work/program" "$work/model")"
}
compile "${CC:-cc} -std=c99" program.c
! command -v c++ >/dev/null || compile "c++ -std=c++17" program.cpp
