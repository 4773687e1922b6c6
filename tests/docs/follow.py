"""A page of the documentation as a bash script that does what the page says, word for word: follow.py PAGE WAY

WAY is deb, cmake or pip: of the blocks that name a way only its own are followed, and for pip the Python blocks in place of C and C++.
Or it is script: the machine's blocks that name no way, and nothing else. The script stops at the first command that fails.
"""

import re
import sys

import blocks

WAYS = {"deb", "cmake", "pip"}
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)", re.M)


def here(command, text):
    return f"{command} <<'END OF BLOCK'\n{text}END OF BLOCK\n"


def follow(page, way):
    for block in blocks.read(page):
        ways = WAYS & set(block.words)
        if ways and way not in ways or "cuda" in block.words or way == "script" and "machine" not in block.words:
            continue
        if block.language == "sh":
            yield block.text
        elif way == "pip" and block.language == "python":
            yield here("python3", block.text)
        elif way != "pip" and block.file:
            yield here(f"cat >{block.file}", block.text)
        elif way != "pip" and block.language == "console":
            for command in COMMAND.findall(block.text):
                yield f"{command}\n"


if __name__ == "__main__":
    print("set -eu\nset -x\n" + "".join(follow(sys.argv[1], sys.argv[2])), end="")
