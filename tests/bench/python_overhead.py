"""What the Python package adds to a call of the library, and how long its first embedding takes.

    python tests/bench/python_overhead.py MODEL_DIRECTORY     all-MiniLM-L6-v2, or another that embeds

A call's overhead is what it spends outside of the C function that does the work: the time from before the method to the C function, and
from there until the method has returned; clocks around the function say when. Both ends are of the same call, because a model's call
differs by more from one to the next than Python takes. The processor's caches are as the model leaves them, which is most of what is
measured; the tokenizer leaves them warm. The row tf_embed() is the C function by itself, called with arguments that were made before: what
the clocks and ctypes cost.

The start is a process of its own, from before the import until the first vector is there, files being in the page cache: once as it is,
and once with NumPy imported before. The package's bytecode is there, as pip leaves it.
"""

import compileall
import pathlib
import statistics
import subprocess
import sys
import time

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


def clocks_around(lib, name):
    """When the library's function last began and ended: a list that its stand-in, which does as little as it can, writes to."""
    function, now, times = getattr(lib, name), time.perf_counter_ns, [0, 0]

    def timed(*arguments):
        times[0] = now()
        status = function(*arguments)
        times[1] = now()
        return status

    setattr(lib, name, timed)
    return times


def print_overhead(what, call, times, calls=2000):
    before, behind, inside = [], [], []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        before.append(times[0] - begin)
        behind.append(end - times[1])
        inside.append(times[1] - times[0])
    outside = sorted(map(sum, zip(before, behind)))
    parts = [statistics.median(times) / 1e3 for times in (outside, before, behind, inside)]
    best = outside[calls // 20] / 1e3
    where = f"{parts[1]:.1f} before, {parts[2]:.1f} behind; 5 % under {best:.1f}"
    print(f"{what:16s} {parts[0]:5.1f} us ({where}) beside {parts[3]:.1f} us in C")


def main(path):
    import numpy as np

    import tfinfer
    from tfinfer._inputs import take_one
    from tfinfer._library import lib

    compileall.compile_dir(pathlib.Path(tfinfer.__file__).parent, quiet=1)
    print_starts(path)
    model = tfinfer.Model.open(path, device="cpu", threads=1)
    times, ids = clocks_around(lib, "tf_embed"), np.array([1, 2], np.int32)
    print_overhead("embed(text)", lambda: model.embed("a"), times)
    print_overhead("embed(ids)", lambda: model.embed(ids), times)
    print_overhead("embed([text])", lambda: model.embed(["a"]), times)
    session, one, out = model._session.open, take_one("a"), np.empty(model.info.embedding_width, np.float32)
    print_overhead("tf_embed()", lambda at=out.ctypes.data: lib.tf_embed(session, one.c, None, at, out.size), times)
    tokenizer, times = model.tokenizer, clocks_around(lib, "tf_tokenizer_encode")
    print_overhead("tokenizer(text)", lambda: tokenizer("a"), times)


if __name__ == "__main__":
    main(sys.argv[1])
