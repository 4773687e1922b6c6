#!/bin/bash
# Every block of docs/cpp.md compiles without a warning and runs: docs_cpp.sh LIBRARY WRITE_TINY_MODEL
# A block without a main() gets one around it. "embedder" is a tiny model; the others are those of examples/models.
set -eu
library=$1
write_tiny_model=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v c++ >/dev/null || { echo "skipped: there is no C++ compiler"; exit 77; }

awk -v folder="$work" '/^```cpp$/ { n++; inside = 1; next } /^```$/ { inside = 0 }
    inside { print > (folder "/block" n ".txt") }' "$root/docs/cpp.md"
"$write_tiny_model" "$work/embedder"
ln -s "$root/examples" "$work/examples"
cd "$work"
count=0
for block in block*.txt; do
    program=${block%.txt}
    if grep -q 'int main' "$block"; then
        cp "$block" "$program.cpp"
    else
        { echo '#include <iostream>'; echo '#include <tfinfer/tfinfer.hpp>'; echo 'int main() {'; cat "$block"; echo '}'; } >"$program.cpp"
    fi
    c++ -std=c++17 -Wall -Wextra -Werror -I"$root/include" "$program.cpp" "$library" "-Wl,-rpath,$(dirname "$library")" -o "$program" ||
        { cat -n "$program.cpp"; exit 1; }
    "./$program" >out 2>&1 || { echo "docs/cpp.md, block $program: failed"; cat "$program.cpp" out; exit 1; }
    [ -s out ] || { echo "docs/cpp.md, block $program: printed nothing"; exit 1; }
    echo "$program: $(tr '\n' ' ' <out | cut -c1-90)"
    count=$((count + 1))
done
[ $count = "$(grep -c '^```cpp$' "$root/docs/cpp.md")" ] || { echo "docs/cpp.md has blocks that did not run"; exit 1; }
echo "docs/cpp.md: $count blocks"
