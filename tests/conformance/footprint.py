"""Resident memory of a process that opens a model and a session, in a process of its own. Run by test_plan.py:

footprint.py [DIRECTORY DTYPE]     prints one JSON line; without arguments the library is only linked
"""

import json
import sys
import time

import tfi


def memory_bytes(key):
    """VmRSS or VmHWM (the most RSS so far) of this process."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":"))


def main():
    found = {}
    if len(sys.argv) > 1:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            model = tfi.Model(sys.argv[1], dtype=sys.argv[2])
            session = tfi.Session(model)
            times.append(time.perf_counter() - start)
            if len(times) == 1:
                found.update(peak_at_open=memory_bytes("VmHWM"), after_open=memory_bytes("VmRSS"))
                n = model.info.max_input_tokens
                session.encode(tfi.Inputs(ids=[[1] * n, [2] * 9, [3] * (n // 2)]), layers=[0], logits=False)
                found.update(peak=memory_bytes("VmHWM"), after_run=memory_bytes("VmRSS"))
            session.close()
            model.close()
        found["open_ms"] = min(times) * 1e3
    else:
        found.update(
            peak_at_open=memory_bytes("VmHWM"),
            after_open=memory_bytes("VmRSS"),
            peak=memory_bytes("VmHWM"),
            after_run=memory_bytes("VmRSS"),
        )
    print(json.dumps(found))


main()
