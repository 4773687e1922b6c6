"""Wrong calls: an exception of Python's that names what is wrong, and the model works on."""

import asyncio
import concurrent.futures

import numpy as np
import pytest
import tfinfer
import torch
from conftest import MODELS, opened
from tfinfer import errors

BIG = 2**70


@pytest.fixture(scope="module")
def classifier(made):
    with opened(made("BertForSequenceClassification", num_labels=2)) as model:
        yield model


@pytest.fixture(autouse=True)
def works_on(classifier, gpt2):
    yield
    assert classifier.classify("the cat").label and gpt2.generate("I", max_new_tokens=1)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (None, TypeError),
        (7, TypeError),
        (7.5, TypeError),
        (b"bytes", TypeError),
        ([b"bytes"], TypeError),
        (["text", 5], TypeError),
        (["text", None], TypeError),
        ({"a": 1}, TypeError),
        (object(), TypeError),
        ((x for x in "ab"), TypeError),
        ("\ud800", UnicodeEncodeError),
        ([1.5, 2.5], TypeError),
        (np.array(["2020-01-01"], "M8[D]"), TypeError),
        (np.array([1.5]), TypeError),
        (np.array([1j]), TypeError),
        (np.array([True, False]), TypeError),
        (np.array([b"x"]), TypeError),
        (np.array([None, 1], object), TypeError),
        (torch.tensor([1.0]), TypeError),
        (torch.tensor([1.0], requires_grad=True), TypeError),
        (torch.tensor([5, 6]).to_sparse(), TypeError),
        (torch.zeros(3, dtype=torch.int32, device="meta"), TypeError),
        ([5, BIG], OverflowError),
        ([5, 2**31], OverflowError),
        ([5, -(2**31) - 1], OverflowError),
        (np.array([5, 2**40]), OverflowError),
        (np.array([2**63], np.uint64), OverflowError),
        ([[1, 2], ["x"]], TypeError),
        ([[[1, 2]]], ValueError),
        ([[1, 2], [[3]]], ValueError),
        ([1, [2]], ValueError),
        (np.zeros((1, 2, 3), np.int32), ValueError),
        (np.int32(5), TypeError),
        ([5, 10**6], errors.InvalidError),
        ([5, -7], errors.InvalidError),
        ([[5], []], errors.InvalidError),
        ("the cat " * 500, errors.InvalidError),
        ([5] * 500, errors.InvalidError),
    ],
)
def test_inputs(classifier, inputs, error):
    with pytest.raises(error):
        classifier.classify(inputs)


class Longer(list):
    """It says so of itself, as a list did from which another thread has taken something since."""

    def __len__(self):
        return 100_000


class Other(str):
    def encode(self, *_):
        return b"other"


def test_what_lies_about_itself(classifier, gpt2):
    texts, pairs = ["the cat", "water"], ["sat", "is"]
    for ours, given in (
        (classifier.classify(texts, pairs=pairs), classifier.classify(Longer(texts), pairs=Longer(pairs))),
        (classifier.classify(texts), classifier.classify(list(map(Other, texts)))),
    ):
        assert [row.logits.tolist() for row in ours] == [row.logits.tolist() for row in given]
    assert classifier.encode(Longer(texts), pairs=Longer(pairs)).starts.tolist() == classifier.encode(texts, pairs=pairs).starts.tolist()
    assert classifier.tokenizer(Longer(texts), Longer(pairs)) == classifier.tokenizer(texts, pairs)
    assert len(gpt2.generate(Longer(texts), stop_strings=Longer(["zz"]), max_new_tokens=2)) == 2


def test_a_row_that_grows_while_it_is_read(embedder):
    class Grows:
        def __index__(self):
            ids.extend([0] * 2**20)
            return 5

    ids = [5, Grows()]
    assert np.allclose(embedder.embed(ids), embedder.embed([5, 5]), atol=1e-5)


def test_texts_in_arrays(classifier):
    want = [row.score for row in classifier.classify(["the cat", "water"])]
    for dtype in (str, object):
        assert [row.score for row in classifier.classify(np.array(["the cat", "water"], dtype))] == want
    assert classifier.classify(np.array("water")).score == want[1]
    rows = np.array([None, None])
    rows[:] = [5, 6, 7], [8]
    assert [row.score for row in classifier.classify(rows)] == [row.score for row in classifier.classify([[5, 6, 7], [8]])]
    with pytest.raises(TypeError):
        classifier.classify(np.array(["the cat", None], object))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (dict(nonsense=1), TypeError),
        (dict(struct_size=8), TypeError),
        (dict(reserved=1), TypeError),
        (dict(activation="nonsense"), ValueError),
        (dict(activation=["softmax"]), ValueError),
        (dict(truncate="yes"), TypeError),
        (dict(truncate=BIG), OverflowError),
        (dict(truncate=-(2**31)), OverflowError),
        (dict(truncate=7), errors.InvalidError),
        (dict(pairs=["a", "b"]), ValueError),
        (dict(pairs=5), TypeError),
        (dict(pairs=[5]), TypeError),
        (dict(type_ids=[1]), TypeError),
        (dict(embeddings=np.zeros((2, 64), np.float32)), TypeError),
    ],
)
def test_options(classifier, options, error):
    with pytest.raises(error):
        classifier.classify("the cat", **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (dict(type_ids=[1]), ValueError),
        (dict(type_ids=[[1, 1]]), ValueError),
        (dict(type_ids=[9, 9]), errors.InvalidError),
        (dict(type_ids=[0.5, 0.5]), TypeError),
        (dict(embeddings=np.zeros((2, 63), np.float32)), ValueError),
        (dict(embeddings=np.zeros((3, 64), np.float32)), ValueError),
        (dict(embeddings=np.zeros(64, np.float32)), ValueError),
        (dict(embeddings=np.zeros((2, 64), np.int32)), TypeError),
        (dict(embeddings=np.zeros((2, 64), complex)), TypeError),
        (dict(embeddings=torch.zeros(2, 64, dtype=torch.bfloat16)), TypeError),
        (dict(embeddings="text"), TypeError),
        (dict(pairs="text"), TypeError),
    ],
)
def test_what_goes_with_ids(classifier, options, error):
    with pytest.raises(error):
        classifier.classify([5, 6], **options)
    if "embeddings" in options:
        with pytest.raises((TypeError, ValueError)):
            classifier.classify(embeddings=[options["embeddings"], np.zeros((2, 65), np.float32)])


def test_options_of_encode(classifier):
    for wrong in (dict(layer_count=5), dict(hidden=5), dict(truncate=True)):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            classifier.encode("the cat", **wrong)
    for layers, error in (([9], errors.InvalidError), ([-1], errors.InvalidError), ([2**31], OverflowError), ("x", TypeError)):
        with pytest.raises(error):
            classifier.encode("the cat", layers=layers)


def test_nan_among_embeddings(classifier):
    with pytest.raises(errors.NumericError):
        classifier.classify(embeddings=np.full((2, 64), np.nan, np.float32))


def test_tasks_that_the_checkpoint_lacks(classifier, gpt2):
    for call in (classifier.ner, classifier.generate, classifier.fill_mask, gpt2.classify):
        with pytest.raises(errors.UnsupportedError):
            call("x")


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.zeros((2, 64), np.float64), TypeError),
        (np.zeros((2, 64), ">f4"), TypeError),
        ([[0.0]], TypeError),
        (torch.zeros(2, 64), TypeError),
        (np.zeros((2, 63), np.float32), ValueError),
        (np.zeros((1, 64), np.float32), ValueError),
        (np.zeros(128, np.float32), ValueError),
        (np.asfortranarray(np.zeros((2, 64), np.float32)), ValueError),
        (np.zeros((2, 128), np.float32)[:, ::2], ValueError),
        (np.zeros((2, 64), np.float32)[::-1], ValueError),
        (np.broadcast_to(np.zeros(64, np.float32), (2, 64)), ValueError),
        (np.frombuffer(bytes(512), np.float32).reshape(2, 64), ValueError),  # read-only
    ],
)
def test_out(made, out, error):
    with opened(made("BertModel")) as model, pytest.raises(error):
        model.embed(["the cat", "water"], out=out)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (dict(num_beam=4), TypeError),
        (dict(keep_scores=True), TypeError),
        (dict(eos_ids=[1]), TypeError),
        (dict(output_scores=True), TypeError),
        (dict(max_new_tokens=2**31), OverflowError),
        (dict(max_new_tokens=BIG), OverflowError),
        (dict(seed=2**63), OverflowError),
        (dict(max_new_tokens=1.5), TypeError),
        (dict(max_new_tokens="5"), TypeError),
        (dict(max_new_tokens=0), errors.InvalidError),
        (dict(temperature="0.7"), TypeError),
        (dict(temperature=10**400), OverflowError),
        (dict(temperature=float("nan")), ValueError),
        (dict(do_sample=True, temperature=-1.0), errors.InvalidError),
        (dict(num_beams=65), errors.InvalidError),
        (dict(num_beams=2, num_return_sequences=3), errors.InvalidError),
        (dict(length_penalty=2.0, num_beams=1), errors.InvalidError),
        (dict(early_stopping="sometimes", num_beams=2), ValueError),
        (dict(early_stopping=1, num_beams=2), ValueError),
        (dict(stop_strings=5), TypeError),
        (dict(stop_strings=["a", 5]), TypeError),
        (dict(stop_strings="\ud800"), UnicodeEncodeError),
        (dict(stop_strings=[""]), errors.InvalidError),
        (dict(eos_token_id="x"), TypeError),
        (dict(eos_token_id=[BIG]), OverflowError),
        (dict(eos_token_id=[[1]]), ValueError),
        (dict(bad_words_ids=5), TypeError),
        (dict(bad_words_ids=[["x"]]), TypeError),
        (dict(bad_words_ids=[[]]), errors.InvalidError),
        (dict(sequence_bias=5), TypeError),
        (dict(sequence_bias={(1,): "1"}), TypeError),
        (dict(exponential_decay_length_penalty=5), TypeError),
        (dict(logits_processor=5), TypeError),
        (dict(embeddings=np.zeros((2, 3), np.float32)), (TypeError, ValueError)),
    ],
)
def test_settings_of_generate(gpt2, options, error):
    with pytest.raises(error) as caught:
        gpt2.generate("the", **options)
    if error in (TypeError, OverflowError):
        assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("prompt", [None, 7, b"x", object(), {"a": 1}, [None], [["x"]], [[1], "x"]])
def test_prompts(gpt2, prompt):
    with pytest.raises(TypeError):
        gpt2.generate(prompt)
    with pytest.raises((TypeError, ValueError)):
        gpt2.stream(prompt)


def test_stream_takes_one_prompt(gpt2):
    for several in (["a", "b"], [[1], [2]], []):
        with pytest.raises(ValueError, match="one prompt"):
            gpt2.stream(several)


class Mine(Exception):
    pass


def fail(*_):
    raise Mine


def test_exceptions_in_callbacks(classifier, gpt2, made):
    for call in (
        lambda: classifier.classify("the cat", progress=fail),
        lambda: classifier.classify(["the cat"] * 50, progress=fail),
        lambda: gpt2.generate("I", max_new_tokens=3, logits_processor=fail),
        lambda: list(gpt2.stream("I", max_new_tokens=3, logits_processor=fail)),
        lambda: tfinfer.Model.open(MODELS / "gpt2-prose", device="cpu", progress=fail),
        lambda: gpt2.generate("I", max_new_tokens=3, logits_processor=lambda: None),
    ):
        with pytest.raises((Mine, TypeError)):
            call()
        with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises((Mine, TypeError)):
            pool.submit(call).result()


def test_stop_iteration_in_a_callback(gpt2):
    """It neither ends the caller's loop as if nothing were wrong nor leaves a task waiting."""
    spent = dict(max_new_tokens=3, logits_processor=lambda *_: next(iter(())))

    async def several():
        await asyncio.wait_for(gpt2.generate_async("I", **spent), 10)

    for call in (lambda: list(gpt2.stream("I", **spent)), lambda: gpt2.generate("I", **spent), lambda: asyncio.run(several())):
        with pytest.raises(RuntimeError, match="StopIteration"):
            call()


def test_an_exception_in_log_is_reported(monkeypatch):
    import sys

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    opened(MODELS / "gpt2-prose", log=fail).close()
    assert all(isinstance(report.exc_value, Mine) for report in seen)


def test_a_call_from_a_callback(gpt2):
    def again(*_):
        gpt2.generate("I", max_new_tokens=1)

    with pytest.raises(errors.BusyError):
        gpt2.generate("I", max_new_tokens=2, logits_processor=again)


def test_what_a_callback_keeps_stays_valid(gpt2):
    kept = []
    gpt2.generate("I", max_new_tokens=3, logits_processor=lambda *given: kept.append(given))
    for _, ids, logits in kept:
        logits[:] = ids[0]


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("/nowhere/at/all", {}, errors.NotFoundError),
        ("a\0b", {}, ValueError),
        (5, {}, TypeError),
        (None, {}, TypeError),
        (MODELS / "gpt2-prose", dict(device="gpu"), errors.Error),
        (MODELS / "gpt2-prose", dict(device="a\0b"), ValueError),
        (MODELS / "gpt2-prose", dict(device=5), TypeError),
        (MODELS / "gpt2-prose", dict(dtype="float32"), ValueError),
        (MODELS / "gpt2-prose", dict(dtype="fp16", device="cpu"), errors.UnsupportedError),
        (MODELS / "gpt2-prose", dict(threads=0), errors.InvalidError),
        (MODELS / "gpt2-prose", dict(threads=BIG), OverflowError),
        (MODELS / "gpt2-prose", dict(memory_budget=1000), errors.NoMemoryError),
        (MODELS / "gpt2-prose", dict(session_memory_budget=1000), errors.NoMemoryError),
        (MODELS / "gpt2-prose", dict(kv_tokens=-1), errors.InvalidError),
        (MODELS / "gpt2-prose", dict(nonsense=1), TypeError),
        (MODELS / "gpt2-prose", dict(allocator=1), TypeError),
        (MODELS / "gpt2-prose", dict(log=1), TypeError),
        (MODELS / "gpt2-prose", dict(progress=1), TypeError),
        (b"/nowhere/\xff", {}, errors.NotFoundError),
    ],
)
def test_open(path, options, error):
    with pytest.raises(error):
        tfinfer.Model.open(path, **options)


def test_the_tokenizers_arguments(embedder, gpt2):
    tokenizer = embedder.tokenizer
    for bad, error in [
        (lambda: tokenizer(5), TypeError),
        (lambda: tokenizer([5]), TypeError),
        (lambda: tokenizer(b"x"), TypeError),
        (lambda: tokenizer("a", ["b", "c"]), ValueError),
        (lambda: tokenizer("a", padding="sideways"), ValueError),
        (lambda: tokenizer("a", padding=True, padding_side="up"), ValueError),
        (lambda: tokenizer("a", padding=True, return_length=BIG, pad_to_multiple_of="x"), TypeError),
        (lambda: tokenizer("a", padding=True, pad_to_multiple_of=-8), ValueError),
        (lambda: tokenizer("a", padding=True, pad_to_multiple_of=BIG), OverflowError),
        (lambda: tokenizer("a", padding=True, pad_to_multiple_of=2.5), TypeError),
        (lambda: tokenizer("a", padding="max_length", max_length=-5), ValueError),
        (lambda: tokenizer("a", padding="max_length", max_length=BIG), OverflowError),
        (lambda: tokenizer([("a", "b"), ("c",)]), ValueError),
        (lambda: tokenizer([("a", "b"), "cd", 5]), TypeError),
        (lambda: tokenizer("a", truncation="all", max_length=3), ValueError),
        (lambda: tokenizer("a", max_length=BIG), OverflowError),
        (lambda: tokenizer("a", max_length=1), errors.InvalidError),
        (lambda: tokenizer("a", return_tensors="tf"), ValueError),
        (lambda: tokenizer("a", threads=0), errors.InvalidError),
        (lambda: tokenizer("\ud800"), UnicodeEncodeError),
        (lambda: tokenizer.decode([BIG]), OverflowError),
        (lambda: tokenizer.decode([10**6]), errors.InvalidError),
        (lambda: tokenizer.decode(["x"]), TypeError),
        (lambda: tokenizer.convert_ids_to_tokens(-1), errors.InvalidError),
        (lambda: tokenizer.convert_tokens_to_ids([5]), TypeError),
        (lambda: tokenizer.stream().push(10**6), errors.InvalidError),
        (lambda: gpt2.tokenizer(["a", "b c"], padding=True), ValueError),
        (lambda: tfinfer.Tokenizer.open("/nowhere"), errors.NotFoundError),
        (lambda: tfinfer.Tokenizer.open("a\0b"), ValueError),
    ]:
        with pytest.raises(error):
            bad()
