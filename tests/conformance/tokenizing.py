"""What the tests of the tokenizers share: one vocabulary opened by both sides, texts to try, and the count of what differed.

Needs TFINFER_LIBRARY (the shared library) and the test data (TFINFER_TEST_DATA, or ../shared/data beside the checkout).
Random inputs are fresh each run; TFC_SEED repeats one."""

import json
import os
import pathlib
import random
import re
import shutil
import time

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["RUST_BACKTRACE"] = "0"  # where the reference refuses windows it panics
import tfi_tokenizer as ours  # noqa: E402
import tokenizers  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("TFINFER_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
SEED = int(os.environ.get("TFC_SEED", time.time_ns() % 2**31))
if not DATA.is_dir():
    pytest.skip("skipped: no test data", allow_module_level=True)
VOCAB = DATA / "tokenizers"
# What was compared: summary_line() tells it.
totals = {"texts": 0, "tokens": 0, "differences": 0, "vocabularies": set()}


def summary_line():
    """One line for all tests of the tokenizers that ran."""
    return "tokenizer conformance: %d texts, %d tokens, %d vocabularies, differences = %d (tokenizers %s, transformers %s, seed %d)" % (
        totals["texts"], totals["tokens"], len(totals["vocabularies"]), totals["differences"], tokenizers.__version__, transformers.__version__, SEED)


@pytest.fixture
def rng(request):
    return random.Random("%d %s" % (SEED, request.node.name))


def make_dir(path, **files):
    """A directory of files: a path is copied, anything else is written as JSON. Names have _ for the dot before the ending."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        target = path / re.sub(r"_(json|txt)$", r".\1", name)
        shutil.copy(content, target) if isinstance(content, pathlib.Path) else target.write_text(json.dumps(content))
    return path


class Both:
    """One vocabulary opened by both sides. `rust` encodes, `hf` is transformers' face of it or None."""

    def __init__(self, name, path, rust=None, hf=None):
        self.name, self.mine, self.hf = name, ours.Tokenizer(path), hf
        self.rust = rust if rust is not None else hf._tokenizer
        totals["vocabularies"].add(name)

    def differ(self, texts, pairs=None, decoded=False):
        """Texts whose tokens are not the reference's in every respect; or, if asked, do not decode to the same text."""
        given = texts if pairs is None else list(zip(texts, pairs))
        self.rust.no_truncation()  # transformers leaves its last call's in place
        expected = self.rust.encode_batch(given)
        d = self.mine.run(texts, pairs, threads=2)
        n = d.tokens
        assert d.rows == len(texts)

        def array(pointer, count=n):
            return np.ctypeslib.as_array(pointer, (count,)) if count else np.zeros(0, int)

        start = array(d.row_start, d.rows + 1)
        lengths = [len(e) for e in expected]
        wrong = set(np.flatnonzero(np.diff(start) != lengths).tolist())
        if not wrong:
            row_of = np.repeat(np.arange(d.rows), lengths)

            def compare(mine, theirs):
                bad = np.asarray(mine).reshape(n, -1) != np.asarray(theirs).reshape(n, -1)
                wrong.update(row_of[bad.any(axis=1)].tolist())

            if n:
                compare(array(d.ids), np.concatenate([e.ids for e in expected]))
                compare(array(d.type_ids), np.concatenate([e.type_ids for e in expected]))
                offsets = np.array([o for e in expected for o in e.offsets]).reshape(n, 2)
                compare(np.stack([array(d.char_begin), array(d.char_end)], 1), offsets)
                compare(array(d.word), [-1 if w is None else w for e in expected for w in e.word_ids])
                compare(array(d.sequence), [-1 if s is None else s for e in expected for s in e.sequence_ids])
        if decoded and not wrong:
            wrong.update(self.decoded_otherwise(d, [e.ids for e in expected]))
        totals["texts"] += len(texts)
        totals["tokens"] += int(n)
        totals["differences"] += len(wrong)
        return [given[i] for i in sorted(wrong)]

    def decoded_otherwise(self, d, ids):
        """Rows whose ids, which both sides have, decode to another text: every other one without special tokens."""
        for skip in (0, 1):
            expected = self.rust.decode_batch(ids[skip::2], skip_special_tokens=bool(skip))
            for row, text in zip(range(skip, d.rows, 2), expected):
                if self.mine.decode_row(d, row, skip_special_tokens=skip, clean_up=0) != text:
                    yield row

    def check(self, texts, pairs=None, decoded=False):
        for i in range(0, len(texts), 2000):
            wrong = self.differ(texts[i : i + 2000], None if pairs is None else pairs[i : i + 2000], decoded)
            assert not wrong, "%s: %d texts differ, first %r" % (self.name, len(wrong), wrong[0])


# Texts.


def all_points():
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def lines_of(path):
    return path.read_bytes().decode("utf-8", "replace").split("\n")


def normalization_texts():
    """All strings of Unicode's NormalizationTest."""
    texts = set()
    for line in (DATA / "text/unicode/NormalizationTest.txt").read_text().splitlines():
        if line and line[0] not in "#@":
            texts |= {"".join(chr(int(x, 16)) for x in field.split()) for field in line.split("#")[0].split(";")[:5] if field.strip()}
    return sorted(texts)


def random_text(rng, tokens=("[MASK]", "[CLS]", "[UNK]", "[SEP]", "[mask]", "[PAD")):
    """Characters from neighbouring ranges, marks on anything, controls, spaces and special tokens anywhere."""
    marks = [0x300, 0x316, 0x345, 0x301, 0x1DFA, 0x8D4, 0x8D5, 0x20D0, 0x591, 0x5B0, 0x3099, 0x94D, 0x1D165, 0xF71, 0xF72, 0x302A]
    pools = [
        lambda: chr(rng.randrange(32, 127)),
        lambda: chr(rng.randrange(32, 127)),
        lambda: rng.choice(["the ", "Un", "affable", " ", ".", "\u00e9", "\u0130", "\u00df", "  ", "\t", "\n", "\u3000", "\x00", "\x7f"]),
        lambda: chr(rng.randrange(0x80, 0x600)),
        lambda: chr(rng.choice(marks)),
        lambda: chr(rng.choice(marks)) + chr(rng.choice(marks)),
        lambda: chr(rng.randrange(0x600, 0x2100)),
        lambda: chr(rng.randrange(0x4E00, 0x9FFF)),
        lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
        lambda: chr(rng.randrange(0xF900, 0xFFFE)),
        lambda: chr(rng.randrange(0x2000, 0x2070)),
        lambda: chr(rng.randrange(0x10000, 0x20000)),
        lambda: chr(rng.choice([0xFFFD, 0x200D, 0xAD, 0xE0001, 0x10FFFF, 0x378, 0x2FA1D, 0x1E900, 0x10400])),
        lambda: rng.choice(tokens),
    ]
    chosen = rng.sample(pools, rng.randrange(1, 6))
    return "".join(rng.choice(chosen)() for _ in range(rng.choice([1, 3, 10, 30, 120])))
