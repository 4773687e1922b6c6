#!/bin/bash
# What a host program's build sees: consumers.sh BUILD_DIR WRITE_TINY_MODEL
# Installs the build to a temporary prefix, then builds README.md's C and C++ programs with pkg-config and with find_package (shared and
# static both ways) against nothing but that prefix, and runs each on a tiny model, as well as the installed tfinfer program. Without a
# C++ compiler the C++ program is left out. The tokenizer's library is used the same two ways by examples/tokenize.c, and with the tree
# as a subproject. Versions and parts that are not there are refused.
set -eu
build=$1
write_tiny_model=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if grep -q 'CMAKE_C_FLAGS:.*-fsanitize' "$build/CMakeCache.txt"; then
    echo "skipped: a sanitized library is not for other programs"
    exit 77
fi

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
for package in libtfinfer0 libtfinfer-dev tfinfer; do
    [ ! -e "$work/prefix/share/doc/$package" ] || { echo "a prefix has Debian's files of $package"; exit 1; }
done
"$write_tiny_model" "$work/model"
for program in program.c program.cpp; do
    python3 "$root/tests/docs/blocks.py" README.md $program >"$work/$program"
done
lines=$(wc -l <"$work/program.c")

runs() { # TITLE PROGRAM
    "$2" "$work/model" >"$work/out" || { echo "$1: failed"; cat "$work/out"; exit 1; }
    grep -qE '[0-9]\.[0-9]+' "$work/out" || { echo "$1: printed no number:"; cat "$work/out"; exit 1; }
    echo "$1: $(head -1 "$work/out")"
}

library_dir=$(dirname "$(find "$work/prefix" -name 'libtfinfer.so')")
export PKG_CONFIG_PATH=$library_dir/pkgconfig
version=$(pkg-config --modversion tfinfer)
# shellcheck disable=SC2046 # flags are split on purpose
cc -std=c99 -Wall -Wextra -Werror $(pkg-config --cflags tfinfer) "$work/program.c" $(pkg-config --libs tfinfer) -o "$work/program"
LD_LIBRARY_PATH=$library_dir runs "README program ($lines lines), pkg-config $version" "$work/program"
# shellcheck disable=SC2046
cc -std=c99 "$work/program.c" $(pkg-config --cflags --static --libs tfinfer | sed 's/-ltfinfer/-l:libtfinfer.a/') -o "$work/static"
runs "README program, pkg-config --static" "$work/static"
if command -v c++ >/dev/null; then
    # shellcheck disable=SC2046
    c++ -std=c++17 -Wall -Wextra -Werror $(pkg-config --cflags tfinfer) "$work/program.cpp" $(pkg-config --libs tfinfer) -o "$work/program++"
    LD_LIBRARY_PATH=$library_dir runs "README C++ program, pkg-config" "$work/program++"
fi

mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
include(CheckLanguage)
check_language(CXX)
find_package(tfinfer $version REQUIRED COMPONENTS static tokenizer)
add_executable(shared $work/program.c)
target_link_libraries(shared PRIVATE tfinfer::tfinfer)
add_executable(static $work/program.c)
target_link_libraries(static PRIVATE tfinfer::static)
if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
    add_executable(cxx $work/program.cpp)
    target_compile_features(cxx PRIVATE cxx_std_17)
    target_link_libraries(cxx PRIVATE tfinfer::tfinfer)
endif()
add_executable(tokenize $root/examples/tokenize.c)
target_link_libraries(tokenize PRIVATE tfinfer::tokenizer)
EOF
if ! { cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$work/prefix" &&
    cmake --build "$work/project/build"; } >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi
runs "find_package, tfinfer::tfinfer" "$work/project/build/shared"
runs "find_package, tfinfer::static" "$work/project/build/static"
[ ! -e "$work/project/build/cxx" ] || runs "find_package, C++" "$work/project/build/cxx"
for program in "$work/static" "$work/project/build/static"; do
    if ldd "$program" | grep -q libtfinfer; then
        echo "$program: the static library links the shared one"
        exit 1
    fi
done

refuses() { # REASON FIND_PACKAGE_ARGUMENTS [CMAKE_ARGUMENT]
    mkdir -p "$work/refused"
    echo "cmake_minimum_required(VERSION 3.25)
project(refused LANGUAGES C)
find_package(tfinfer $2 REQUIRED)" >"$work/refused/CMakeLists.txt"
    if cmake -S "$work/refused" -B "$work/refused/build" -DCMAKE_PREFIX_PATH="$work/prefix" ${3:+"$3"} >"$work/log" 2>&1 ||
        ! tr -s ' \n' ' ' <"$work/log" | grep -q "$1"; then
        cat "$work/log"
        echo "find_package(tfinfer $2) $3: not refused with '$1'"
        exit 1
    fi
    rm -r "$work/refused"
}
case $version in 0.*) refuses "compatible with requested version" 0.0 ;; esac
refuses "compatible with requested version" "$((${version%%.*} + 1)).0"
refuses "missing of what the static libraries are linked with: DNNL::dnnl" "COMPONENTS static" -DCMAKE_DISABLE_FIND_PACKAGE_dnnl=ON
echo "find_package refuses versions that are not compatible, and says what a static library lacks"

# shellcheck disable=SC2046 # flags are split on purpose
cc -std=c99 -Wall -Wextra -Werror $(pkg-config --cflags tfinfer-tokenizer) "$root/examples/tokenize.c" \
    $(pkg-config --libs tfinfer-tokenizer) -o "$work/tokenize"
mkdir "$work/host"
cat >"$work/host/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(host LANGUAGES C)
set(TFINFER_CUDA OFF)
add_subdirectory($root tfinfer EXCLUDE_FROM_ALL)
add_executable(tokenize $root/examples/tokenize.c)
target_link_libraries(tokenize PRIVATE tfinfer::tokenizer)
add_executable(program $work/program.c)
target_link_libraries(program PRIVATE tfinfer::tfinfer)
EOF
if ! { cmake -S "$work/host" -B "$work/host/build" && cmake --build "$work/host/build" --target tokenize -j2; } >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi
for program in "$work/tokenize" "$work/project/build/tokenize" "$work/host/build/tokenize"; do
    "$program" "$work/model" "the cat sat" >"$work/out" || { echo "$program: failed"; cat "$work/out"; exit 1; }
    grep -q "text: the cat sat" "$work/out" || { echo "$program: printed another text:"; cat "$work/out"; exit 1; }
    if ldd "$program" | grep -qE 'libtfinfer|libdnnl'; then
        echo "$program: the tokenizer's library leans on the rest"
        exit 1
    fi
    echo "${program#"$work"/}, of the tokenizer's library: $(wc -l <"$work/out") lines"
done

[ "$("$work/prefix/bin/tfinfer" --version)" = "tfinfer $version" ] || { echo "the installed program tells another version"; exit 1; }
"$work/prefix/bin/tfinfer" embed --json "$work/model" "the cat sat" >"$work/out"
echo "installed program: $(cut -c1-60 "$work/out")"
