"""What tf_model_plan promises against what happens: bytes of the allocator, resident memory of the process, budgets."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import make
import tfi

MB = 1 << 20
DTYPES = ["fp32", "bf16"]


def file_bytes_resident(path):
    """Resident bytes of this process's mappings of files in directory `path`."""
    total, inside = 0, False
    with open("/proc/self/smaps") as f:
        for line in f:
            first = line.split(maxsplit=1)[0]
            if "-" in first and not first.endswith(":"):
                inside = str(path) in line
            elif inside and first == "Rss:":
                total += int(line.split()[1]) * 1024
    return total


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    """A model of BERT-base's size, 440 MB of fp32."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("base")
    cfg = make.config("bert", rng, layers=12, heads=12, head_size=64, vocab=30522, ffn=3072, range=0.02)
    return make.save(make.build("BertForMaskedLM", cfg, rng), path)


@pytest.fixture
def directory(request, minilm, base_model):
    return dict(minilm=minilm, base=base_model)[request.param]


def skip_unless(dtype, have_bf16):
    if dtype == "bf16" and not have_bf16:
        pytest.skip("this processor has no bf16 instructions")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("directory", ["minilm", "base"], indirect=True)
@pytest.mark.parametrize("settings", [{}, dict(max_step_tokens=512, max_sequences=4)], ids=["unset", "small"])
def test_allocator_bytes(directory, dtype, settings, tally, have_bf16):
    """plan = what the allocator gave plus the pages of the checkpoint that stay mapped, within 2 % + 4 MB."""
    skip_unless(dtype, have_bf16)
    promised = tfi.plan(directory, dtype, session=tfi.SessionOptions(**settings))
    assert promised.total_bytes == promised.weight_bytes + promised.mapped_bytes + promised.model_bytes + promised.session_bytes
    allocator = tfi.CountingAllocator()
    of_others = file_bytes_resident(directory)  # another test's reference model may still map the same files
    with tfi.Model(directory, dtype=dtype, **allocator.options) as model:
        of_model = allocator.held
        assert (
            allocator.peak
            <= promised.weight_bytes + promised.model_bytes + promised.load_bytes + 0.02 * promised.total_bytes + 4 * MB
        )
        with tfi.Session(model, **settings) as session:
            session.encode(tfi.Inputs(ids=[[1] * 500, [2] * 9]), layers=[0], logits=False)
            real = allocator.held + max(0, file_bytes_resident(directory) - of_others)
            near(tally, "total", real, promised.total_bytes)
            near(tally, "session", allocator.held - of_model, promised.session_bytes)
            near(tally, "session's own count", session.stats().bytes, promised.session_bytes)
    tally.same(allocator.held, 0, "bytes left after close")


def near(tally, what, real, promised):
    tally.draws += 1
    slack = 0.02 * promised + 4 * MB
    tally.require(abs(real - promised) <= slack, f"{what}: {real / MB:.2f} MB, the plan says {promised / MB:.2f} MB")


@pytest.mark.parametrize("dtype", DTYPES)
def test_budgets_are_the_plan(dtype, minilm, have_bf16):
    """A budget at the plan's figure opens; one well under it does not, and says both numbers."""
    skip_unless(dtype, have_bf16)
    p = tfi.plan(minilm, dtype)
    of_model = p.weight_bytes + p.model_bytes + p.load_bytes
    with tfi.Model(minilm, dtype=dtype, memory_budget=of_model + 4 * MB) as model:
        tfi.Session(model, memory_budget=p.session_bytes + MB).close()
        with pytest.raises(tfi.Error) as e:
            tfi.Session(model, memory_budget=p.session_bytes // 2)
        assert e.value.status == "NOMEM" and str(p.session_bytes // 2) in e.value.text, e.value
    with pytest.raises(tfi.Error) as e:
        tfi.Model(minilm, dtype=dtype, memory_budget=of_model // 2)
    assert e.value.status == "NOMEM", e.value


def footprint(*arguments):
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, here / "footprint.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("directory", ["minilm", "base"], indirect=True)
def test_resident_memory(directory, dtype, tally, have_bf16, capsys):
    """RSS beyond that of a process that only links the library stays under the plan + 30 MB: at the peak of open, after, and
    after a run."""
    skip_unless(dtype, have_bf16)
    promised = tfi.plan(directory, dtype)
    linked, found = footprint(), footprint(directory, dtype)
    over = {name: found[name] - linked[name] - promised.total_bytes for name in linked}
    with capsys.disabled():
        print(
            f"\n{directory.name} {dtype}: plan {promised.total_bytes / MB:.1f} MB; RSS beyond it in MB: "
            + ", ".join(f"{name} {value / MB:+.1f}" for name, value in over.items())
            + f"; open + session {found['open_ms']:.0f} ms warm"
        )
    for name, value in over.items():
        tally.draws += 1
        tally.require(value <= 30 * MB, f"{name}: {value / MB:.1f} MB over the plan")
