"""What the Python package adds to a call of the library, and how long its first embedding takes.

    python tests/bench/python_overhead.py MODEL_DIRECTORY [--device cuda]     all-MiniLM-L6-v2, or another that embeds

A call's overhead is what it spends outside of the C function that does the work: the time from before the method to the C function, and
from there until the method has returned, ctypes included. A stand-in of a few lines of C, compiled here (CC, else cc), reads the clock on
both sides of the function; Python's reads on both sides of the method are in the figure. Both ends are of the same call, because a
model's call differs by more from one to the next than Python takes. The processor's caches are as the model leaves them, which is most of
what is measured: with --device cuda, or behind the tokenizer, they stay warm. The row ctypes is the C function by itself, called with
arguments that were made before.

The start is a process of its own, from before the import until the first vector is there, files being in the page cache: once as it is,
and once with NumPy imported before. The package's bytecode is there, as pip leaves it.
"""

import argparse
import compileall
import ctypes
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
START = """
import sys, time
begin = time.perf_counter()
if sys.argv[2] == "before":
    import numpy
numpied = time.perf_counter()
import tfinfer
imported = time.perf_counter()
model = tfinfer.Model.open(sys.argv[1], device="cpu")
opened = time.perf_counter()
model.embed("The first embedding.")
end = time.perf_counter()
print(numpied - begin, imported - numpied, opened - imported, end - opened, end - begin)
"""
NAMES = ("import numpy", "import tfinfer", "open", "first embedding", "together")


def start_times(path, numpy):
    command = [sys.executable, "-c", START, path, numpy]
    return [1e3 * float(x) for x in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def print_starts(path, runs=20):
    pairs = [(start_times(path, "meanwhile"), start_times(path, "before")) for _ in range(runs)]
    for title, of_one in zip(("NumPy imported while the model opens", "NumPy imported before"), zip(*pairs)):
        print(title)
        for name, times in zip(NAMES, zip(*of_one)):
            if max(times) > 0.1:
                print(f"    {name:16s} {min(times):6.1f} ms, median {statistics.median(times):6.1f} ms")


def stand_ins(folder):
    """The library of python_overhead.c."""
    path = pathlib.Path(folder, "stand_ins.so")
    source, include = HERE / "python_overhead.c", HERE.parent.parent / "include"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", f"-I{include}", source, "-o", path], check=True)
    return ctypes.CDLL(str(path))


def watch(holder, attribute, name, clocks):
    """Put the stand-in in the place of the library's function `name`, which the holder has as an attribute."""
    function, timed = getattr(holder, attribute), clocks[f"timed_{name}"]
    ctypes.c_void_p.in_dll(clocks, f"{name}_of_library").value = ctypes.cast(function, ctypes.c_void_p).value
    timed.restype, timed.argtypes = function.restype, function.argtypes
    setattr(holder, attribute, timed)


def time_outside(call, clocks, calls):
    """Medians of the microseconds before the C function, behind it, of both together, and inside it."""
    began, ended = (ctypes.c_longlong.in_dll(clocks, name) for name in ("began", "ended"))
    before, behind, inside = [], [], []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        before.append(began.value - begin)
        behind.append(end - ended.value)
        inside.append(ended.value - began.value)
    return [statistics.median(times) / 1e3 for times in (before, behind, map(sum, zip(before, behind)), inside)]


def print_calls(path, device, clocks, rounds=10, calls=200):
    """In turns, because a shared cache is left alone for seconds and then not."""
    import numpy as np

    import tfinfer
    from tfinfer import _c
    from tfinfer import model as model_module
    from tfinfer._library import lib, unset

    watch(model_module, "_embed", "tf_embed", clocks)
    for name in ("tf_embed", "tf_tokenizer_encode"):
        watch(lib, name, name, clocks)
    with tfinfer.Model.open(path, device=device, threads=1) as model:
        ids, tokenizer = np.array([1, 2], np.int32), model.tokenizer
        session = model._session.open.pointer
        text, given, out = _c.Text(b"a", 1), unset(_c.Input), np.empty(model.info.embedding_width, np.float32)
        given.texts, given.count = ctypes.addressof(text), 1
        rows = {
            "embed(text)": lambda: model.embed("a"),
            "embed(ids)": lambda: model.embed(ids),
            "embed([id, id])": lambda: model.embed([1, 2]),
            "embed([text])": lambda: model.embed(["a"]),
            "ctypes": lambda at=out.ctypes.data: lib.tf_embed(session, given, None, at, out.size),
            "tokenizer(text)": lambda: tokenizer("a"),
        }
        times = {what: [] for what in rows}
        for _ in range(rounds):
            for what, call in rows.items():
                times[what].append(time_outside(call, clocks, calls))
    print(f"outside of C, us: the best and the middle of {rounds} rounds")
    for what, found in times.items():
        before, behind, outside, inside = (statistics.median(column) for column in zip(*found))
        least = min(row[2] for row in found)
        print(f"    {what:16s} {least:5.1f} {outside:5.1f} ({before:.1f} before, {behind:.1f} behind) beside {inside:.1f} in C")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("path")
    options.add_argument("--device", default="cpu")
    given = options.parse_args()
    package = subprocess.run([sys.executable, "-c", "import tfinfer; print(tfinfer.__path__[0])"], capture_output=True, check=True)
    compileall.compile_dir(package.stdout.decode().strip(), quiet=1)
    if given.device == "cpu":
        print_starts(given.path)
    with tempfile.TemporaryDirectory() as folder:
        print_calls(given.path, given.device, stand_ins(folder))


if __name__ == "__main__":
    main()
