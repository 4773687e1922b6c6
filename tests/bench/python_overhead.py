"""What the Python package adds to a call of the library, and how long its first embedding takes.

    python tests/bench/python_overhead.py MODEL_DIRECTORY     all-MiniLM-L6-v2, or another that embeds

A call's overhead is the time of model.embed() less that of the bare C call with the same arguments, made ready before; both are
medians over calls that take turns, so that what else the machine does meets both. The start is a process of its own: from before
`import tfinfer` until the first vector is there, the files being in the page cache.
"""

import statistics
import subprocess
import sys
import time

START = """
import sys, time
begin = time.perf_counter()
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


def start_times(path, runs=10):
    command = [sys.executable, "-c", START, path]
    return [[1e3 * float(x) for x in subprocess.run(command, capture_output=True, check=True).stdout.split()] for _ in range(runs)]


def timed(call, calls=50):
    """Microseconds a call: the median of some."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1e3


def overhead(whole, bare, rounds=40):
    """The median difference of rounds in turn, and the bare call's time."""
    pairs = [(timed(whole), timed(bare)) for _ in range(rounds)]
    return statistics.median(w - b for w, b in pairs), statistics.median(b for _, b in pairs)


def main(path):
    import numpy as np

    import tfinfer
    from tfinfer import _c
    from tfinfer._inputs import Inputs
    from tfinfer._library import lib, unset

    runs = start_times(path)
    for name, times in zip(("import numpy", "import tfinfer", "open", "first embedding", "together"), zip(*runs)):
        print(f"{name:16s} {min(times):6.1f} ms, median {statistics.median(times):6.1f} ms")

    model = tfinfer.Model.open(path, device="cpu", threads=1)
    out = np.empty((1, model.info.embedding_width), np.float32)
    ids = np.array([1, 2], np.int32)
    for what, value in (("embed(text)", "a"), ("embed(ids)", ids)):
        inputs = Inputs(value, {}, model.info.input_width)
        with model._session as session:
            bare = lambda: lib.tf_embed(session, inputs.c, None, out.ctypes.data, out.shape[1])  # noqa: E731, B023
            added, took = overhead(lambda: model.embed(value), bare)  # noqa: B023
        print(f"{what:16s} {added:6.1f} us on top of {took:.1f} us in C")

    tokenizer = model.tokenizer
    text = Inputs("a", {}, 1).c
    import ctypes

    encoding = ctypes.c_void_p()
    options = unset(_c.TokenizeOptions)
    with tokenizer._handle:
        lib.tf_encoding_open(tokenizer._pointer, ctypes.byref(encoding))
        texts = ctypes.cast(text.texts, ctypes.POINTER(_c.Text))
        bare = lambda: lib.tf_tokenizer_encode(tokenizer._pointer, texts, None, 1, options, encoding)  # noqa: E731
        added, took = overhead(lambda: tokenizer("a"), bare)
        lib.tf_encoding_close(encoding)
    print(f"{'tokenizer(text)':16s} {added:6.1f} us on top of {took:.1f} us in C")


if __name__ == "__main__":
    main(sys.argv[1])
