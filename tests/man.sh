#!/bin/bash
# The manual pages: man.sh PROGRAM FOLDER, the tfinfer program and where tfinfer.1 and tfinfer.3 were made.
# 1. mandoc and man, whichever are there, have no warnings;
# 2. tfinfer(1) has the commands and options that the program tells of itself, and no others, and its version;
# 3. tfinfer(3) has every function that the library exports, and no others; its example compiles.
set -u
program=$1
folder=$2
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
checkers=""

fail() {
    echo "man: $*"
    failed=1
}

for page in "$folder/tfinfer.1" "$folder/tfinfer.3"; do
    if command -v mandoc >/dev/null; then
        checkers="mandoc "
        # That the page names its system, and that no other page of ours is installed yet, is as it should be.
        mandoc -Tlint -W style "$page" 2>&1 | grep -vE 'operating system explicitly|referenced manual not found' >"$work/lint"
        [ ! -s "$work/lint" ] || { cat "$work/lint"; fail "mandoc warns of ${page##*/}"; }
    fi
    if man --version >/dev/null 2>&1 && command -v groff >/dev/null; then
        checkers="${checkers%man}man"
        LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>"$work/warnings" >/dev/null
        [ ! -s "$work/warnings" ] || { cat "$work/warnings"; fail "man warns of ${page##*/}"; }
    fi
    grep -q "$("$program" --version)" "$page" || fail "${page##*/} is not of this version"
done

same() { # WHAT OF_THE_PAGE EXPECTED
    if diff "$2" "$3" >"$work/diff"; then
        echo "man: $1: $(wc -l <"$3"), as there are"
    else
        cat "$work/diff"
        fail "$1 differ (<: the page's)"
    fi
}

"$program" help | sed -nE 's/^  ([a-z-]+)  .*/\1/p' | sort >"$work/commands"
sed -n '/^.Sh COMMANDS/,/^.Sh OPTIONS/s/^\.It Cm //p' "$folder/tfinfer.1" | grep -vx help | sort >"$work/of_page"
same "commands" "$work/of_page" "$work/commands"
while read -r command; do "$program" help "$command"; done <"$work/commands" |
    sed -nE 's/^  --([a-z-]+).*/\1/p' | sort -u >"$work/options"
grep -oE 'Fl -[a-z][a-z-]*' "$folder/tfinfer.1" | sed 's/^Fl -//' | grep -vx version | sort -u >"$work/of_page"
same "options" "$work/of_page" "$work/options"
LC_ALL=C sort "$root/tests/abi/symbols.txt" >"$work/functions"
grep -oE '\bFn tf_[a-z_]+' "$folder/tfinfer.3" | sed 's/^Fn //' | LC_ALL=C sort -u >"$work/of_page"
same "functions" "$work/of_page" "$work/functions"

sed -n '/^.Bd -literal/,/^.Ed/p' "$folder/tfinfer.3" | sed '/^\./d; s/\\e/\\/g' >"$work/example.c"
${CC:-cc} -std=c99 -Wall -Wextra -Werror -fsyntax-only -I"$root/include" "$work/example.c" || fail "the example of tfinfer.3 does not compile"
[ -s "$work/example.c" ] || fail "tfinfer.3 has no example"
echo "man: checked with ${checkers:-nothing, for neither mandoc nor groff is installed}"
exit $failed
