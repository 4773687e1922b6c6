"""The fenced blocks of the documentation. As a program: blocks.py PAGE FILE prints the block of PAGE that has FILE for its name.

A block's first line is ```LANGUAGE WORDS. What a language means and what the words say stands in test_pages.py. A block that is
marked by indentation, has no language or does not end is an error, so that nothing is shown which nobody runs.
"""

import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LANGUAGES = {"c", "cmake", "cpp", "python", "sh", "console", "output", "text"}


@dataclasses.dataclass
class Block:
    page: str
    line: int  # of the block's first line of text
    language: str
    words: list[str]
    text: str
    output: str | None = None  # the text of a block "output" right behind it: what it prints

    @property
    def file(self):
        return next((word for word in self.words if "." in word), None)

    def __str__(self):
        return f"{self.page}:{self.line} {' '.join([self.language, *self.words])}"


def pages():
    """Every page of the documentation, and every public header, as paths from the root."""
    found = [ROOT / "README.md", ROOT / "bindings/python/README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
    found += ROOT.glob("include/tfinfer/*.h*")
    return sorted(str(page.relative_to(ROOT)) for page in found)


def read(page):
    return read_header(page) if page.startswith("include/") else read_page(page)


def read_header(page):
    """What stands between @code and @endcode; @code{.unparsed} is text."""
    blocks, block = [], None
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" \* @code(.*)", line)
        if mark:
            language = "text" if mark[1] else "cpp" if page.endswith("hpp") else "c"
            block = Block(page, number + 1, language, ["gpt2-prose"], "")
        elif line == " * @endcode":
            blocks.append(block)
            block = None
        elif block:
            block.text += line[3:] + "\n"
    return blocks


def read_page(page):
    blocks, block, fence, previous = [], None, "", ""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        mark = re.match(r"(`{3,})(.*)", line)
        if block and mark and mark[1] == fence and not mark[2]:
            block.text = "".join(text + "\n" for text in lines[block.line - 1 : number - 1])
            if block.language == "output":
                blocks[-1].output = block.text
            else:
                blocks.append(block)
            block = None
        elif not block and mark:
            fence = mark[1]
            language, *words = mark[2].split() or [""]
            block = Block(page, number + 1, language, words, "")
            if language not in LANGUAGES:
                raise ValueError(f"{page}:{number}: a block of language '{language}'; there are {', '.join(sorted(LANGUAGES))}")
            if language == "output" and (not blocks or blocks[-1].output is not None or blocks[-1].language in ("text", "console")):
                raise ValueError(f"{page}:{number}: an output without a program before it")
        elif not block and re.match(r" {4,}\S", line) and not previous:
            raise ValueError(f"{page}:{number}: a block by indentation; fence it")
        previous = line
    if block:
        raise ValueError(f"{page}:{block.line}: the block does not end")
    return blocks


if __name__ == "__main__":
    found = [block for block in read(sys.argv[1]) if block.file == sys.argv[2]]
    if len(found) != 1:
        sys.exit(f"{sys.argv[1]} has {len(found)} blocks named {sys.argv[2]}")
    sys.stdout.write(found[0].text)
