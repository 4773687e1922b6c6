#!/bin/bash
# The binary interface: tests/abi/check.sh LIBRARY
# 1. the library exports the names in symbols.txt and nothing else, all in the node of the release that added them;
# 2. the public headers declare those names, each compiles by itself as C99, C11 and C++17; those for C++ too, under every warning that
#    a program may be built with, with and without exceptions, and they use all of those names;
# 3. it is linked with few libraries, and none of CUDA's: those are opened when a GPU is asked for;
# 4. abidiff finds no incompatible change against the last release's description (libtfinfer.abi), where there is one.
set -u
library=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

same() { # WHAT EXPECTED ACTUAL
    if diff -u "$2" "$3" >"$work/diff"; then
        echo "abi: $1: $(wc -l <"$3") names, as listed"
    else
        echo "abi: $1 differ from tests/abi/symbols.txt:"
        cat "$work/diff"
        failed=1
    fi
}

LC_ALL=C sort "$here/symbols.txt" >"$work/listed"
sed 's/$/@@TFINFER_0/' "$work/listed" >"$work/versioned"
# Absolute symbols are the version nodes themselves.
nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort >"$work/exported"
same "exported symbols" "$work/versioned" "$work/exported"
cat "$root"/include/tfinfer/*.h | sed -nE 's/^TF_API [^(]*[ *](tf_[a-z_]+)\(.*/\1/p' | LC_ALL=C sort >"$work/declared"
same "declared functions" "$work/listed" "$work/declared"

readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >"$work/needed"
grep -vE '^(libdnnl|libjansson|libpcre2-8|libutf8proc|libmecab|libm|libc|libpthread|libdl|librt|libgcc_s|ld-linux[-a-z0-9_]*)\.so' "$work/needed" >"$work/unwanted"
if [ -s "$work/unwanted" ]; then
    echo "abi: linked with what not every machine has: $(paste -sd' ' "$work/unwanted")"
    failed=1
else
    echo "abi: linked with $(paste -sd' ' "$work/needed")"
fi

headers_failed=0
for header in "$root"/include/tfinfer/*.h; do
    name=tfinfer/${header##*/}
    for language in "c c99" "c c11" "c++ c++17"; do
        read -r kind standard <<<"$language"
        compiler=${CC:-cc}
        [ "$kind" = c++ ] && compiler=${CXX:-c++}
        # shellcheck disable=SC2086 # a compiler may be given with its flags
        if ! echo "#include <$name>" |
            $compiler -x "$kind" -std="$standard" -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$root/include" - 2>"$work/log"; then
            echo "abi: $name does not compile by itself as $standard:"
            cat "$work/log"
            headers_failed=1
        fi
    done
done
if [ $headers_failed = 1 ]; then failed=1; else echo "abi: headers compile by themselves as C99, C11 and C++17"; fi

compiles_cxx() { # COMPILER STANDARD FILE FLAGS...
    local compiler=$1 standard=$2 file=$3
    shift 3
    $compiler -x c++ -std="$standard" -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror -fsyntax-only "$@" \
        -I"$root/include" -I"$root/tests" -I"$root/tests/api" "$file" 2>"$work/log" && return
    echo "abi: ${file##*/} does not compile as $standard with $compiler $*:"
    grep -m5 -E 'error|warning' "$work/log"
    headers_failed=1
}

# The tests of the C++ headers, for that instantiates what they have; that the compilers are different ones is worth the time.
headers_failed=0
compilers=""
for compiler in "${CXX:-c++}" clang++ clang++-14; do
    command -v "${compiler%% *}" >/dev/null || continue
    case $compiler in clang++-14) command -v clang++ >/dev/null && continue ;; esac
    compilers="$compilers $compiler"
    for standard in c++17 c++20 c++2b; do compiles_cxx "$compiler" $standard "$root/tests/api/hpp.cpp"; done
    compiles_cxx "$compiler" c++17 "$root/tests/api/hpp_returning.cpp" -fno-exceptions -fno-rtti
    compiles_cxx "$compiler" c++20 "$root/tests/api/hpp_expected.cpp"
    for header in base tokenizer; do
        echo "#include <tfinfer/$header.hpp>" >"$work/alone.cpp"
        compiles_cxx "$compiler" c++17 "$work/alone.cpp"
    done
done
while read -r name; do
    grep -qwh "$name" "$root"/include/tfinfer/*.hpp || { echo "abi: the C++ headers have nothing for $name"; headers_failed=1; }
done <"$work/listed"
if [ $headers_failed = 1 ]; then failed=1; else echo "abi: C++ headers: all names, C++17 to C++23, with and without exceptions:$compilers"; fi

baseline=$here/libtfinfer.abi
if [ ! -e "$baseline" ]; then
    echo "abi: SKIPPED abidiff: no release yet, so no tests/abi/libtfinfer.abi"
elif ! command -v abidiff >/dev/null; then
    echo "abi: SKIPPED abidiff: not installed"
else
    abidiff --headers-dir2 "$root/include" "$baseline" "$library"
    code=$?
    [ $((code & 4)) != 0 ] && echo "abi: abidiff found changes (above); a reviewer decides"
    if [ $((code & 11)) != 0 ]; then # 1: error, 2: usage, 8: incompatible
        echo "abi: abidiff: an incompatible change, or an error (code $code)"
        failed=1
    fi
fi
exit $failed
