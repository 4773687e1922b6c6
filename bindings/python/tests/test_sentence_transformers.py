"""accelerate() for sentence-transformers: equal embeddings from an unchanged encode, over every pooling and real modules."""

import pickle
import warnings

import make
import numpy as np
import pytest
import texts
import torch
import transformers
from tfinfer import errors

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer import modules  # noqa: E402
from tfinfer.integrations.sentence_transformers import FallbackWarning, accelerate  # noqa: E402

TEXTS = ["A cat sat on the mat.", "Zürich's naïve café — 東京", "", "the house in the water " * 70, "of a"]
BOUND = 5e-6  # relative L2; the worst seen is 1.6e-6


def near(got, want):
    assert type(got) is type(want)
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert np.linalg.norm(got - want) <= BOUND * np.linalg.norm(want)


def silent(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        return call(*args, **kwargs)


@pytest.fixture(scope="module")
def real(minilm):
    model = SentenceTransformer(str(minilm), device="cpu")
    return model, accelerate(model, fallback="raise")


def test_encode(real):
    model, accelerated = real
    assert isinstance(accelerated, SentenceTransformer) and accelerated._tfinfer_whole
    for given in (TEXTS, TEXTS[0], TEXTS[:1]):
        near(silent(accelerated.encode, given), model.encode(given))
    for options in (
        dict(convert_to_tensor=True),
        dict(batch_size=2, normalize_embeddings=True),
        dict(truncate_dim=100),
        dict(prompt="query: "),
    ):
        near(silent(accelerated.encode, TEXTS, **options), model.encode(TEXTS, **options))
    for name in ("encode_query", "encode_document"):
        near(silent(getattr(accelerated, name), TEXTS), getattr(model, name)(TEXTS))
    assert (accelerated.encode(TEXTS, precision="binary") == model.encode(TEXTS, precision="binary")).mean() > 0.99
    assert accelerated.encode([]).shape == model.encode([]).shape
    similar = accelerated.similarity(accelerated.encode(TEXTS), model.encode(TEXTS))
    np.testing.assert_allclose(similar.diagonal(), 1, atol=1e-5)


def test_other_outputs(real):
    """Token vectors and whole features: the modules one by one, the first one accelerated."""
    model, accelerated = real
    for got, want in zip(*(silent(m.encode, TEXTS, output_value="token_embeddings") for m in (accelerated, model))):
        near(got, want)
    for got, want in zip(*(silent(m.encode, TEXTS, output_value=None) for m in (accelerated, model))):
        assert list(got) == list(want)
        near(got["sentence_embedding"], want["sentence_embedding"])
    features = [silent(m, m.preprocess(TEXTS)) for m in (accelerated, model)]
    assert sorted(features[0]) == sorted(features[1])


def build(path, rng, pooling, more=(), cls="BertModel"):
    vocabulary = texts.write_small_tokenizer(path, 64, lowercase=True)
    if cls == "BertModel":
        cfg = make.config("bert", rng, vocab=len(vocabulary), tokens=64)
    else:
        cfg = make.t5_config("t5", rng, vocab_size=len(vocabulary))
    make.save(make.build(cls, cfg, rng), path)
    first = modules.Transformer(str(path), max_seq_length=64)
    return SentenceTransformer(modules=[first, modules.Pooling(first.get_embedding_dimension(), pooling), *more], device="cpu")


@pytest.mark.parametrize("pooling", [*modules.Pooling.POOLING_MODES, ("cls", "mean", "max")])
def test_modules(pooling, rng, tmp_path):
    width = build(tmp_path, rng, pooling).get_embedding_dimension()
    torch.manual_seed(int(rng.integers(2**31)))
    for more in (
        [],
        [modules.Normalize()],
        [modules.Dense(width, 24), modules.Dense(24, 24, bias=False, activation_function=torch.nn.Identity()), modules.Normalize()],
        [modules.Dense(width, 40, activation_function=torch.nn.GELU(), use_residual=True)],
    ):
        model = SentenceTransformer(modules=[*build(tmp_path, rng, pooling), *more][: 2 + len(more)], device="cpu")
        accelerated = accelerate(model, fallback="raise")
        assert accelerated._tfinfer_whole
        near(silent(accelerated.encode, TEXTS), model.encode(TEXTS))


class Tripled(torch.nn.Linear):
    def forward(self, x):
        return 3 * super().forward(x)


def test_modules_that_are_more(rng, tmp_path):
    """A module behind the transformer that its weights do not describe runs in PyTorch; one that changes afterwards takes all there."""
    model = build(tmp_path, rng, "mean")
    width = model.get_embedding_dimension()
    for change in (
        lambda dense: setattr(dense.linear, "__class__", Tripled),
        lambda dense: dense.linear.register_forward_hook(lambda _, __, output: 2 * output),
    ):
        dense = modules.Dense(width, 24)
        change(dense)
        changed = SentenceTransformer(modules=[*model, dense], device="cpu")
        accelerated = accelerate(changed, fallback="raise")
        assert not accelerated._tfinfer_whole
        near(silent(accelerated.encode, TEXTS), changed.encode(TEXTS))
    dense = modules.Dense(width, 24)
    changed = SentenceTransformer(modules=[*model, dense], device="cpu")
    accelerated = accelerate(changed)
    near(silent(accelerated.encode, TEXTS), changed.encode(TEXTS))
    with torch.no_grad():
        dense.linear.weight.mul_(2)
    with pytest.warns(FallbackWarning, match=r"2\.linear\.weight, which has changed"):
        near(accelerated.encode(TEXTS), changed.encode(TEXTS))


def test_modules_that_are_not_built(rng, tmp_path):
    """What stands behind the transformer runs in PyTorch."""
    model = build(tmp_path, rng, "mean", [modules.Dropout(0.3), modules.LayerNorm(64)])
    accelerated = accelerate(model, fallback="raise")
    assert not accelerated._tfinfer_whole
    near(silent(accelerated.encode, TEXTS), model.encode(TEXTS))
    words = modules.WordEmbeddings(
        sentence_transformers.sentence_transformer.modules.tokenizer.WhitespaceTokenizer(["a", "b"]), np.ones((2, 8), np.float32)
    )
    model = SentenceTransformer(modules=[words, modules.Pooling(8)], device="cpu")
    with pytest.warns(FallbackWarning, match="without a model of transformers"):
        assert accelerate(model) is model
    with pytest.raises(errors.UnsupportedError):
        accelerate(model, fallback="raise")


def test_prompt_left_out(rng, tmp_path):
    model = build(tmp_path, rng, "mean")
    model[1].include_prompt = False
    accelerated = accelerate(model, fallback="raise")
    near(silent(accelerated.encode, TEXTS[:2], prompt="the of: "), model.encode(TEXTS[:2], prompt="the of: "))


def test_t5(rng, tmp_path):
    model = build(tmp_path, rng, "mean", [modules.Normalize()], "T5EncoderModel")
    assert isinstance(model.transformers_model, transformers.T5EncoderModel)
    accelerated = accelerate(model, fallback="raise")
    assert accelerated._tfinfer_whole
    near(silent(accelerated.encode, TEXTS), model.encode(TEXTS))


def test_object(real):
    model, accelerated = real
    assert accelerated.device == model.device and accelerated.max_seq_length == model.max_seq_length
    assert accelerated.get_embedding_dimension() == model.get_embedding_dimension()
    assert accelerated.tokenizer is model.tokenizer and list(accelerated.parameters()) == []
    assert accelerated.eval() is accelerated and accelerated.to("cpu") is accelerated
    with pytest.raises(TypeError, match="copied"):
        pickle.dumps(accelerated)
    with pytest.raises(TypeError, match="already"):
        accelerate(accelerated)
    with pytest.raises(TypeError, match="SentenceTransformer"):
        accelerate(model.transformers_model)
    with pytest.raises(ValueError, match="batch_size"):
        accelerated.encode(TEXTS, batch_size=0)
    with pytest.raises(ValueError, match="no_such"):
        accelerated.encode(TEXTS, no_such=1)
    near(accelerated.encode(TEXTS), model.encode(TEXTS))
