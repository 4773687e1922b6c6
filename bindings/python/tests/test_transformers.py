"""accelerate() for models of transformers: PyTorch's outputs over random configurations; what falls back, and how; wrong calls."""

import copy
import gc
import inspect
import pickle
import threading
import weakref

import make
import pytest
import tfinfer
import torch
import transformers
from drop_in import BOUND, draw, draw_batch, draw_generator, falls_back, same, silent
from tfinfer import errors
from tfinfer.integrations.transformers import FallbackWarning, accelerate

ENCODERS = [name for _, name in make.CLASSES] + make.GPT2_CLASSES + ["T5EncoderModel", "MT5EncoderModel"]


@pytest.mark.parametrize("cls", ENCODERS)
def test_forward(cls, rng):
    model = draw(cls, rng)
    accelerated = accelerate(model, fallback="raise")
    assert isinstance(accelerated, type(model)) and type(accelerated).__name__ == cls
    batch = draw_batch(model, rng)
    if make.has_types(model):
        batch["token_type_ids"] = torch.from_numpy(rng.integers(0, model.config.type_vocab_size, tuple(batch["input_ids"].shape)))
    with torch.no_grad():
        for given in (dict(), dict(output_hidden_states=True), dict(attention_mask=None)):
            given = {**batch, **given}
            same(silent(accelerated, **given), model(**given), given["attention_mask"])
        got, want = silent(accelerated, batch["input_ids"], return_dict=False), model(batch["input_ids"], return_dict=False)
        assert type(got) is tuple and torch.linalg.vector_norm(got[0] - want[0]) <= BOUND * torch.linalg.vector_norm(want[0])
        if cls != "GPT2ForSequenceClassification":
            batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
            same(silent(accelerated, **batch), model(**batch), batch["attention_mask"])


def test_masks(rng):
    """Both sides, where positions allow it; every form of a mask; a mask with holes falls back."""
    roberta, gpt2, t5, bert = (draw(cls, rng) for cls in ("RobertaForMaskedLM", "GPT2LMHeadModel", "T5EncoderModel", "BertModel"))
    with torch.no_grad():
        for model in (roberta, t5):
            batch = draw_batch(model, rng, "left")
            accelerated = accelerate(model)
            for mask in (batch["attention_mask"], batch["attention_mask"].bool(), batch["attention_mask"].to(torch.int32)):
                given = {**batch, "attention_mask": mask}
                same(silent(accelerated, **given), model(**given), mask)
        batch = draw_batch(gpt2, rng, "left")
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        accelerated = accelerate(gpt2)
        same(silent(accelerated, **batch, position_ids=positions), gpt2(**batch, position_ids=positions), batch["attention_mask"])
        same(silent(accelerated, batch["input_ids"], logits_to_keep=2), gpt2(batch["input_ids"], logits_to_keep=2))
        batch["attention_mask"][0, 0] = 0
        strict = accelerate(gpt2, fallback="raise")
        with pytest.raises(errors.UnsupportedError, match="positions other than"):
            strict(**batch)
        batch = draw_batch(roberta, rng, "left")
        batch["attention_mask"][batch["attention_mask"].sum(1).argmax(), -1] = 0  # of a row that keeps others
        falls_back(accelerate(roberta), roberta, "position_ids of", **batch, position_ids=torch.arange(batch["input_ids"].shape[1])[None])
        batch["attention_mask"][0] = batch["input_ids"][0] = 1
        batch["attention_mask"][0, 0] = 0
        batch["input_ids"][0, 0] = 7
        falls_back(accelerate(roberta), roberta, "that is not config.pad_token_id", **batch)
    accelerated = accelerate(bert)
    batch = draw_batch(bert, rng, "left")
    batch["attention_mask"][0, 0] = 0
    falls_back(accelerated, bert, "reads the first column", **batch)
    batch = draw_batch(bert, rng)
    batch["attention_mask"][:] = 1
    batch["attention_mask"][0, 1] = 0
    falls_back(accelerated, bert, "holes", **batch)
    batch["attention_mask"][0] = 0
    falls_back(accelerated, bert, "without tokens", **batch)
    batch["attention_mask"] = torch.ones(len(batch["input_ids"]), 1, *[batch["input_ids"].shape[1]] * 2)
    falls_back(accelerated, bert, "attention_mask of shape", **batch)


@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "GPT2ForSequenceClassification", "BertForMaskedLM", "DistilBertModel", "ElectraModel"])
def test_positions(cls, rng):
    """Padding on the left where columns are positions; position_ids of any kind."""
    model = draw(cls, rng)
    accelerated = accelerate(model)
    batch = draw_batch(model, rng, "left")
    size = batch["input_ids"].shape
    forms = [dict(), dict(output_hidden_states=True)]
    if "position_ids" in inspect.signature(type(model).forward).parameters:
        forms += [dict(position_ids=torch.from_numpy(rng.integers(0, 30, (rows, size[1])))) for rows in (1, size[0])]
    with torch.no_grad():
        for more in forms:
            same(silent(accelerated, **batch, **more), model(**batch, **more), batch["attention_mask"])
        if cls != "GPT2ForSequenceClassification":
            batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
            same(silent(accelerated, **batch), model(**batch), batch["attention_mask"])


def test_what_falls_back(rng):
    model = draw("BertForSequenceClassification", rng)
    accelerated = accelerate(model)
    batch = draw_batch(model, rng)
    labels = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    model.set_attn_implementation("eager")
    falls_back(accelerated, model, "labels", **batch, labels=labels)
    falls_back(accelerated, model, "output_attentions", **batch, output_attentions=True)
    base = draw("BertModel", rng)
    accelerated_base = accelerate(base)
    base.set_attn_implementation("eager")
    for given in (dict(output_attentions=True, output_hidden_states=True), dict(output_hidden_states=[0, 1]), dict(output_hidden_states=1)):
        falls_back(accelerated_base, base, "output_", **batch, **given)
    with torch.no_grad():
        want = base(**batch, output_hidden_states=True)
        same(silent(accelerated_base, **batch, output_hidden_states=True), want, batch["attention_mask"])
    accelerated.train()
    torch.manual_seed(5)
    with pytest.warns(FallbackWarning, match="training mode"):
        accelerated(**batch)
    accelerated.eval()
    same(silent(accelerated, **batch), model(**batch))
    gpt2 = draw("GPT2LMHeadModel", rng)
    batch = draw_batch(gpt2, rng)
    falls_back(accelerate(gpt2), gpt2, "use_cache", **batch, use_cache=True)
    t5 = draw("T5ForConditionalGeneration", rng)
    batch = draw_batch(t5, rng)
    falls_back(accelerate(t5), t5, r"T5ForConditionalGeneration.forward", **batch, decoder_input_ids=batch["input_ids"], use_cache=False)


def test_fallback_as_asked(rng):
    model = draw("BertForTokenClassification", rng)
    batch = draw_batch(model, rng)
    given = {**batch, "labels": torch.zeros_like(batch["input_ids"])}
    with torch.no_grad():
        same(silent(accelerate(model, fallback="silent"), **given), model(**given), bound=0)
    strict = accelerate(model, fallback="raise")
    with pytest.raises(errors.UnsupportedError, match="labels"):
        strict(**given)
    same(silent(strict, **batch), silent(model, **batch), batch["attention_mask"])
    with pytest.raises(ValueError, match="fallback"):
        accelerate(model, fallback="never")


def test_a_model_that_is_not_built(rng):
    model = make.build("BertForMultipleChoice", make.config("bert", rng), rng)
    with pytest.warns(FallbackWarning, match="BertForMultipleChoice") as caught:
        assert accelerate(model) is model
    assert caught[0].filename == __file__
    assert silent(accelerate, model, fallback="silent") is model
    with pytest.raises(errors.UnsupportedError, match="BertForMultipleChoice"):
        accelerate(model, fallback="raise")

    class Mine(transformers.BertModel):
        pass

    with pytest.raises(errors.UnsupportedError, match="Mine"):
        accelerate(Mine(make.config("bert", rng)), fallback="raise")
    hooked = draw("BertModel", rng)
    hooked.forward = hooked.forward
    with pytest.raises(errors.UnsupportedError, match="forward of its own"):
        accelerate(hooked, fallback="raise")
    with pytest.raises(errors.UnsupportedError, match="dtype="):
        accelerate(draw("BertModel", rng).double(), fallback="raise")


class Adapted(torch.nn.Linear):
    """A Linear that computes more than its weight and bias, under the same names, as LoRA does."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.low_rank = torch.nn.Parameter(torch.randn_like(self.weight))

    def forward(self, x):
        return super().forward(x) + x @ self.low_rank.T


def deepen(model):
    model.bert.encoder.layer.append(copy.deepcopy(model.bert.encoder.layer[0]))


def adapt(model):
    model.bert.encoder.layer[0].attention.self.query = Adapted(model.bert.encoder.layer[0].attention.self.query)


def patch(model):
    model.bert.embeddings.forward = model.bert.embeddings.forward


def of_8_bits(model):
    weight = model.classifier.weight.detach().to(torch.float8_e4m3fn)
    model.classifier.weight = torch.nn.Parameter(weight, requires_grad=False)


@pytest.mark.parametrize(
    ("cls", "change", "words"),
    [
        ("BertForTokenClassification", adapt, "attention.self.query is not what"),
        ("BertForTokenClassification", deepen, "is not what the configuration"),
        ("BertForTokenClassification", patch, "bert.embeddings has hooks"),
        ("BertForTokenClassification", lambda m: m.classifier.register_forward_hook(lambda *_: None), "classifier has hooks"),
        ("BertForTokenClassification", lambda m: m.classifier.register_forward_pre_hook(lambda *_: None), "classifier has hooks"),
        ("BertForTokenClassification", lambda m: setattr(m.bert.embeddings.LayerNorm, "eps", 0.5), "LayerNorm is not what"),
        ("BertForTokenClassification", lambda m: setattr(m, "classifier", torch.nn.Linear(m.config.hidden_size, 77)), "shape"),
        ("BertForTokenClassification", lambda m: m.to("meta"), "on meta"),
        ("BertForTokenClassification", of_8_bits, "classifier.weight is torch.float8"),
        ("RobertaModel", lambda m: setattr(m.config, "pad_token_id", m.config.pad_token_id + 1), "word_embeddings is not what"),
        ("GPT2LMHeadModel", lambda m: setattr(m.config, "is_causal", False), "is_causal"),
        ("GPT2LMHeadModel", lambda m: setattr(m, "lm_head", torch.nn.Linear(m.config.n_embd, m.config.vocab_size)), "lm_head is not what"),
        ("T5EncoderModel", lambda m: m.encoder.set_input_embeddings(torch.nn.Embedding(*m.shared.weight.shape)), "encoder.embed_tokens"),
        ("T5ForConditionalGeneration", lambda m: m.decoder.set_input_embeddings(torch.nn.Embedding(*m.shared.weight.shape)), "decoder.emb"),
    ],
)
def test_what_weights_do_not_show(cls, change, words, rng):
    """A model that is more, or other, than its configuration and its weights say is not taken for what they say."""
    model = draw(cls, rng)
    change(model)
    with pytest.warns(FallbackWarning, match=words):
        assert accelerate(model) is model


def test_attention_of_the_callers(rng):
    name = "attention_of_a_test"
    transformers.AttentionInterface.register(name, lambda module, query, key, value, *_, **__: (value.transpose(1, 2), None))
    model = draw("BertModel", rng)
    model.config._attn_implementation = name
    with pytest.warns(FallbackWarning, match=name):
        assert accelerate(model) is model


def test_what_may_differ(rng):
    """What calls of transformers leave behind, and what does not act, is no reason to refuse."""
    model = draw("BertForTokenClassification", rng)
    ids = draw_batch(model, rng)["input_ids"]
    model(ids, output_hidden_states=True, output_attentions=True)  # hooks of transformers' own stay
    model.resize_token_embeddings(model.config.vocab_size + 5, mean_resizing=False)
    model.dropout.p = 0.7
    same(silent(accelerate(model, fallback="raise"), ids), silent(model, ids))
    model.compile(backend="eager")
    strict = accelerate(model, fallback="raise")
    same(silent(strict, ids), silent(model, ids))
    assert strict._compiled_call_impl is None  # else PyTorch's model would run, and live on


def step(model, accelerated):
    for weight in accelerated.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(accelerated.parameters(), lr=0.01).step()


@pytest.mark.parametrize(
    "change",
    [
        step,
        lambda model, accelerated: accelerated.load_state_dict({name: 0.9 * t for name, t in model.state_dict().items()}),
        lambda model, accelerated: model.load_state_dict({name: 0.9 * t for name, t in model.state_dict().items()}, assign=True),
        lambda model, accelerated: accelerated.resize_token_embeddings(model.config.vocab_size + 5, mean_resizing=False),
        lambda model, accelerated: setattr(accelerated, "classifier", torch.nn.Linear(model.config.hidden_size, 7)),
        lambda model, accelerated: model.bfloat16(),
    ],
)
def test_a_change_afterwards(change, rng):
    """The accelerated model sees that it has other weights than PyTorch's now; once more accelerated, it has them."""
    model = draw("BertForTokenClassification", rng)
    batch = draw_batch(model, rng)
    accelerated = accelerate(model)
    same(silent(accelerated, **batch), silent(model, **batch), batch["attention_mask"])
    change(model, accelerated)
    falls_back(accelerated, model, "has changed since", **batch)
    if model.dtype == torch.float32:
        same(silent(accelerate(model), **batch), silent(model, **batch), batch["attention_mask"])


def test_hooks(rng):
    """Those of the model itself run once a call, whoever computes it; generate() leaves their steps to PyTorch."""
    called = []
    model = draw("BertForTokenClassification", rng)
    batch = draw_batch(model, rng)
    model.register_forward_hook(lambda *_: called.append(1))
    accelerated = accelerate(model)
    with torch.no_grad(), pytest.warns(FallbackWarning, match="labels"):
        accelerated(**batch, labels=torch.zeros_like(batch["input_ids"]))
    assert called == [1]
    silent(accelerated, **batch)
    assert called == [1, 1]
    gpt2 = draw_generator("GPT2LMHeadModel", rng)
    accelerated = accelerate(gpt2)
    for m in (gpt2, accelerated):
        m.register_forward_hook(lambda _, __, output: setattr(output, "logits", -output.logits))
    ids = torch.tensor([[5, 6, 7]])
    falls_back(accelerated, gpt2, "hooks", lambda m: m.generate(ids, do_sample=False, max_new_tokens=4))
    accelerated.compile(backend="eager")
    falls_back(accelerated, gpt2, "hooks", lambda m: m.generate(ids, do_sample=False, max_new_tokens=4))


def test_tracing(rng):
    """A trace holds PyTorch's operations, not one call's numbers."""
    model = draw("BertForTokenClassification", rng)
    first, second = (torch.from_numpy(rng.integers(4, model.config.vocab_size, (2, 9))) for _ in range(2))
    with pytest.warns(FallbackWarning, match="tracing"):
        traced = torch.jit.trace(accelerate(model), (first,), strict=False)
    assert torch.equal(traced(second)["logits"], silent(model, second).logits)


def test_weights(rng):
    """With "raise" the PyTorch model can go; borrowed, copied, not contiguous: the same numbers; 16-bit weights give 16-bit outputs."""
    model = draw("BertForMaskedLM", rng)
    ids = draw_batch(model, rng)["input_ids"]
    want = silent(model, ids)
    for option in (dict(borrow=True), dict(borrow=False)):
        strict = accelerate(model, fallback="raise", **option)
        same(silent(strict, ids), want)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            dense = layer.intermediate.dense
            dense.weight = torch.nn.Parameter(dense.weight.t().contiguous().t())
            assert not dense.weight.is_contiguous()
    strict = accelerate(model, fallback="raise")
    parameter = weakref.ref(model.bert.embeddings.word_embeddings.weight)
    del model, layer, dense
    gc.collect()
    assert parameter() is None
    same(silent(strict, ids), want)
    assert list(strict.parameters()) == [] and strict.device.type == "cpu" and strict.dtype == torch.float32
    with pytest.raises(errors.UnsupportedError, match="state_dict"):
        strict.state_dict()
    half = draw("BertModel", rng).bfloat16()
    ids = draw_batch(half, rng)["input_ids"]
    same(silent(accelerate(half, dtype="fp32"), ids), silent(half, ids), bound=3e-2)


def test_object(rng, tmp_path):
    """It has what hf_model has; what would change it says that it cannot."""
    model = draw("BertForTokenClassification", rng)
    accelerated = accelerate(model)
    assert accelerated.config is model.config and accelerated.bert is model.bert
    assert accelerated.eval() is accelerated and accelerated.to("cpu") is accelerated and accelerated.float() is accelerated
    assert accelerated.num_parameters() == model.num_parameters()
    accelerated.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    with pytest.raises(TypeError, match="already"):
        accelerate(accelerated)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="copied"):
            duplicate(accelerated)
    called = []
    accelerated.register_forward_hook(lambda *_: called.append(1))
    ids = draw_batch(model, rng)["input_ids"]
    silent(accelerated, ids)
    silent(model, ids)
    assert called == [1]


def test_moves(rng):
    """As far as a machine without a GPU can tell: another number format is another model, in place."""
    model = draw("BertForTokenClassification", rng)
    accelerated, strict = accelerate(model, dtype="fp32"), accelerate(model, fallback="raise")
    ids = draw_batch(model, rng)["input_ids"]
    want = silent(model, ids)
    assert accelerated.to(torch.bfloat16) is accelerated and accelerated.dtype == model.dtype == torch.bfloat16
    same(silent(accelerated, ids), silent(model, ids), bound=3e-2)
    assert accelerated.float().dtype == torch.float32
    same(silent(accelerated, ids), silent(model, ids))
    falls_back(accelerate(model), model, "a float64 model needs dtype", lambda m: m.to(torch.float64)(ids).logits)
    model.float()
    for change in (strict.half, lambda: strict.to("meta")):
        with pytest.raises(errors.UnsupportedError, match="stays on cpu"):
            change()
    same(silent(strict, ids), want)


@pytest.mark.parametrize("bad", [None, 7, "bert-base", torch.nn.Linear(2, 2), transformers.BertModel])
def test_no_model(bad):
    with pytest.raises(TypeError, match="hf_model"):
        accelerate(bad)


def test_wrong_input(rng):
    model = draw("BertForTokenClassification", rng)
    accelerated = accelerate(model, fallback="raise")
    ids = draw_batch(model, rng)["input_ids"]
    for error, given in (
        (ValueError, dict()),
        (ValueError, dict(input_ids=ids, inputs_embeds=torch.zeros(1, 2, 3))),
        (ValueError, dict(input_ids=ids + 10**6)),
        (ValueError, dict(input_ids=-ids)),
        (OverflowError, dict(input_ids=ids + 2**40)),
        (TypeError, dict(input_ids=ids.float())),
        (AttributeError, dict(input_ids=ids.tolist())),
        (errors.UnsupportedError, dict(input_ids=ids[0])),
        (errors.UnsupportedError, dict(input_ids=ids[:, :0])),
        (errors.UnsupportedError, dict(input_ids=ids, attention_mask=torch.full_like(ids, 2))),
        (errors.UnsupportedError, dict(input_ids=ids, attention_mask=torch.ones_like(ids)[:, 1:])),
        (errors.UnsupportedError, dict(input_ids=ids, no_such=1)),
        (ValueError, dict(input_ids=ids, token_type_ids=torch.full_like(ids, 99))),
        (ValueError, dict(inputs_embeds=torch.zeros(1, 2, 3))),
        (ValueError, dict(input_ids=torch.ones(1, 70, dtype=torch.long))),
    ):
        with pytest.raises(error):
            accelerated(**given)
        same(silent(accelerated, ids), silent(model, ids))
    with pytest.raises(TypeError, match="unknown option"):
        accelerate(model, no_such=1)
    with pytest.raises(tfinfer.errors.NoMemoryError):
        accelerate(model, memory_budget=1000)


def test_threads(rng):
    model = draw("BertForTokenClassification", rng)
    accelerated = accelerate(model, fallback="raise")
    batches = [draw_batch(model, rng) for _ in range(8)]
    want = [silent(model, **batch) for batch in batches]
    found = {}

    def work(i):
        with torch.no_grad():
            found[i] = accelerated(**batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, batch in enumerate(batches):
        same(found[i], want[i], batch["attention_mask"])
