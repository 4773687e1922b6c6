"""Doxygen's INPUT_FILTER for the public C headers: doxygen_filter.py HEADER, to standard output, line by line.

Adds what is the same everywhere and would be noise in the headers (struct_size, _init, _close, the user pointer of a callback), gives each of
several names declared together the comment behind them, which doxygen would give to the last one alone, and each status of a list its line.
"""
import re
import sys

SIZE = "sizeof of this struct as the caller was compiled; the _init function sets it"
RULES = [
    (re.compile(r"^(    uint64_t struct_size;)$"), rf"\1 /**< {SIZE} */"),
    (re.compile(r"^(    void \*(?:\w+_)?user;)$"), r"\1 /**< handed to the callback as it is */"),
    (re.compile(r"^(static inline void tf_\w+_options_init\(.*)$"), r'/** Set struct_size, and every field to "unset". */ \1'),
    (re.compile(r"^(static inline void tf_(?:input|encode_output)_init\(.*)$"), r'/** Set struct_size, and every field to "unset". */ \1'),
    (re.compile(r"^(static inline void tf_\w+_init\(.*)$"), r"/** Set struct_size, for the call that fills the rest. */ \1"),
    (re.compile(r"^( \* {9})(TF_STATUS_\w+) {2,}"), r"\1<br>\2: "),
    (re.compile(r"^( \* {9})(?=TF_STATUS_\w+(?:,|$)|what )"), r"\1<br>"),
    (re.compile(r"^(TF_API void tf_\w+_close\(.*)$"), r"/** Frees it; takes NULL. */ \1"),
]
TOGETHER = re.compile(r"^    ([a-z_][\w ]*\w) ((?:\*?\w+, )+\*?\w+);\s*(/\*\*<.*\*/)$")

previous = ""
for line in open(sys.argv[1], encoding="utf-8").read().splitlines():
    together = TOGETHER.match(line)
    if together:
        kind, names, comment = together.groups()
        line = "    " + " ".join(f"{kind} {name}; {comment}" for name in names.split(", "))
    elif not previous.rstrip().endswith("*/") or previous.lstrip().startswith("/* "):
        for pattern, text in RULES:
            line, changed = pattern.subn(text, line)
            if changed:
                break
    elif "struct_size" in line or "user;" in line:
        for pattern, text in RULES[:2]:
            line = pattern.sub(text, line)
    previous = line
    print(line)
