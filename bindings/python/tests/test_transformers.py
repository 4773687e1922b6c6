"""accelerate() for models of transformers: the same outputs as PyTorch's over random configurations, in pipelines, in generate; what falls
back, and how; wrong calls."""

import copy
import gc
import inspect
import pickle
import threading
import time
import warnings
import weakref

import make
import numpy as np
import pytest
import tfinfer
import torch
import transformers
from conftest import MODELS
from tfinfer import errors
from tfinfer.integrations.transformers import FallbackWarning, accelerate
from transformers import pipeline

BOUND = 1e-5  # relative L2; the worst of 1000 draws, where there are few logits and near 0, is 3e-6


def draw(cls, rng):
    """A model of class `cls` with a configuration and weights drawn at random."""
    family = next((family for family, name in make.CLASSES if name == cls), None)
    if cls.startswith("GPT2"):
        cfg = make.gpt2_config(rng, pad_token_id=3, **make.GPT2_DIALECTS[int(rng.integers(len(make.GPT2_DIALECTS)))])
    elif "T5" in cls:
        dialect = make.T5_DIALECTS[int(rng.integers(len(make.T5_DIALECTS)))]
        layers = int(rng.integers(1, 4))  # as many in both: transformers' cache needs it
        cfg = make.t5_config("mt5" if cls.startswith("M") else "t5", rng, num_layers=layers, num_decoder_layers=layers, **dialect)
    else:
        sizes = dict(layers=int(rng.integers(1, 4)), heads=int(rng.integers(1, 4)), head_size=int(rng.choice([16, 32, 80])))
        more = dict(act=str(rng.choice(["gelu", "gelu_new", "relu"])), ffn=int(rng.choice([96, 100, 257])), tokens=64)
        cfg = make.config(family, rng, pad=int(rng.integers(3)), range=float(rng.choice([0.02, 0.05, 0.1])), **sizes, **more)
        cfg.num_labels = 2 if cls.endswith("QuestionAnswering") else int(rng.integers(2, 12))
    return make.build(cls, cfg, rng)


def draw_batch(model, rng, side="right"):
    """Ids with padding at one side, and the mask."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(3, 30))
    ids = torch.from_numpy(rng.integers(4, model.config.vocab_size, (rows, columns)))
    lengths = torch.from_numpy(rng.integers(1, columns + 1, rows))
    lengths[rng.integers(rows)] = columns
    mask = (torch.arange(columns)[None] < lengths[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    ids[mask == 0] = model.config.pad_token_id or 0
    return dict(input_ids=ids, attention_mask=mask)


def tensors(output):
    """The tensors of an output by name, but for the cache, which an accelerated model does not have."""
    found = {}
    for name, value in output.items():
        if value is None:
            continue
        if isinstance(value, tuple):
            found.update(tensors({f"{name}.{i}": v for i, v in enumerate(value)}))
        elif name != "past_key_values":
            found[name] = value
    return found


def same(got, want, mask=None, bound=BOUND):
    """Equal classes, names, shapes, dtypes and, but for padding, numbers."""
    assert type(got) is type(want)
    got, want = tensors(got), tensors(want)
    assert list(got) == list(want)
    for name, w in want.items():
        g = got[name]
        assert (g.shape, g.dtype, g.device) == (w.shape, w.dtype, w.device), name
        if mask is not None and w.shape[:2] == mask.shape:
            g, w = g[mask.bool()], w[mask.bool()]
        assert torch.equal(g, w) or (bound and torch.linalg.vector_norm(g - w) <= bound * torch.linalg.vector_norm(w)), name


def silent(call, *args, **kwargs):
    """The result of a call that must not fall back."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", FallbackWarning)
        return call(*args, **kwargs)


def falls_back(accelerated, model, words, call=None, **given):
    """The call warns, with these words, and gives exactly what PyTorch gives."""
    call = call or (lambda m: m(**given))
    with torch.no_grad():
        with pytest.warns(FallbackWarning, match=words) as caught:
            got = call(accelerated)
        assert caught[0].filename == __file__
        want = call(model)
    if torch.is_tensor(want):
        assert torch.equal(got, want)
    else:
        same(got, want, bound=0)


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
        same(silent(accelerated_base, **batch, output_hidden_states=True), base(**batch, output_hidden_states=True), batch["attention_mask"])
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
        ("T5ForConditionalGeneration", lambda m: m.decoder.set_input_embeddings(torch.nn.Embedding(*m.shared.weight.shape)), "decoder.embed"),
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


# ---- generate ----


@pytest.fixture(scope="module")
def demo():
    """Real models with their tokenizers, by name: PyTorch's, accelerated without anything to fall back to, tokenizer."""

    def load(name, cls):
        model = getattr(transformers, cls).from_pretrained(MODELS / name, dtype=torch.float32).eval()
        return model, accelerate(model, fallback="raise"), transformers.AutoTokenizer.from_pretrained(MODELS / name)

    return {
        "gpt2": load("gpt2-prose", "GPT2LMHeadModel"),
        "t5": load("t5-pronounce", "T5ForConditionalGeneration"),
        "ner": load("bert-punctuate", "BertForTokenClassification"),
    }


def draw_generator(cls, rng):
    model = draw(cls, rng)
    eos = [int(i) for i in rng.choice(np.arange(4, 30), int(rng.integers(1, 3)), replace=False)]
    start = None if cls.startswith("GPT2") else 0
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos, pad_token_id=3, decoder_start_token_id=start)
    model.config.pad_token_id = 3
    return model


def logprobs(model, given, row, ids, start):
    """Of a generated row by PyTorch in float64, for each new token."""
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            one = {name: value[row : row + 1] for name, value in given.items()}
            logits = double(**one, decoder_input_ids=ids[None], use_cache=False).logits
        else:
            kept = torch.cat([given["attention_mask"][row].bool(), torch.ones(len(ids) - start, dtype=torch.bool)])
            ids, start = ids[kept], int(kept[:start].sum())
            logits = double(ids[None], use_cache=False).logits
    return logits[0, start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None])[:, 0]


def same_ids(model, given, got, want, eos=(), num_beams=1, length_penalty=1.0, **_):
    """Equal, but where float64 finds the two choices, or with beams the two sequences' scores, closer than 1e-4."""
    assert got.shape[0] == want.shape[0]
    start = 1 if model.config.is_encoder_decoder else given["input_ids"].shape[1]
    for i, (g, w) in enumerate(zip(got, want)):
        if g.shape == w.shape and torch.equal(g, w):
            continue
        row = i * len(given["input_ids"]) // len(want)
        values = []
        for ids in (g, w):
            if num_beams == 1:
                end = int((g[: len(w)] != w[: len(g)]).nonzero()[0, 0]) + 1
            else:
                ends = torch.isin(ids[start:], torch.tensor(eos)).nonzero()
                end = start + int(ends[0, 0]) + 1 if len(ends) else len(ids)
            found = logprobs(model, given, row, ids[:end], start)
            values.append(float(found.sum()) / (len(found) ** length_penalty if num_beams > 1 else 1))
        assert values[0] == pytest.approx(values[1], abs=1e-4, rel=1e-5), (i, g, w)


def allowed(row, ids):
    return [10 + row, 12, 11 + len(ids) % 3]


SETTINGS = [
    dict(max_new_tokens=12),
    dict(),
    dict(max_length=40, min_length=36),
    dict(max_new_tokens=12, min_new_tokens=6, repetition_penalty=1.5),
    dict(max_new_tokens=10, num_beams=3),
    dict(max_new_tokens=10, no_repeat_ngram_size=2, encoder_no_repeat_ngram_size=3, encoder_repetition_penalty=1.4),
    dict(max_new_tokens=10, num_beams=4, num_return_sequences=3, length_penalty=0.3, early_stopping=True),
    dict(max_new_tokens=10, num_beams=2, early_stopping="never", length_penalty=-1.0),
    dict(max_new_tokens=10, bad_words_ids=[[12], [13, 14]], suppress_tokens=[20, 21], begin_suppress_tokens=[15]),
    dict(max_new_tokens=10, sequence_bias={(14,): 3.0, (12, 15): -5.0}, forced_eos_token_id=5),
    dict(max_new_tokens=10, exponential_decay_length_penalty=(3, 1.4), remove_invalid_values=True, renormalize_logits=True),
    dict(max_new_tokens=6, prefix_allowed_tokens_fn=allowed),
    dict(max_new_tokens=6, num_beams=3, prefix_allowed_tokens_fn=allowed),
    dict(max_new_tokens=8, eos_token_id=[10, 11, 12]),
    dict(max_new_tokens=8, max_time=1000.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "defaults")
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration", "MT5ForConditionalGeneration"])
def test_generate(cls, settings, rng):
    model = draw_generator(cls, rng)
    accelerated = accelerate(model, fallback="raise")
    batch = draw_batch(model, rng, "left" if cls.startswith("GPT2") else str(rng.choice(["left", "right"])))
    if "encoder_repetition_penalty" in settings:  # transformers lets them count padding
        batch["attention_mask"][:] = 1
    got, want = (m.generate(**batch, do_sample=False, **settings) for m in (accelerated, model))
    same_ids(model, batch, got, want, **{"eos": model.generation_config.eos_token_id, **settings})
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, **{k: v for k, v in settings.items() if k != "prefix_allowed_tokens_fn"})
    got = accelerated.generate(
        batch["input_ids"][:1], config, attention_mask=batch["attention_mask"][:1],
        prefix_allowed_tokens_fn=settings.get("prefix_allowed_tokens_fn"),
    )  # fmt: skip
    assert got.shape[0] == settings.get("num_return_sequences", 1)


def test_generate_gives_scores(rng):
    for cls in ("GPT2LMHeadModel", "T5ForConditionalGeneration"):
        model = draw_generator(cls, rng)
        accelerated = accelerate(model, fallback="raise")
        batch = draw_batch(model, rng, "left")
        given = dict(**batch, do_sample=False, max_new_tokens=6, return_dict_in_generate=True, repetition_penalty=1.2)
        got, want = (m.generate(**given, output_scores=True, output_logits=True) for m in (accelerated, model))
        assert type(got) is type(want)
        same_ids(model, batch, got.sequences, want.sequences)
        if torch.equal(got.sequences, want.sequences):
            start = want.sequences.shape[1] - len(want.scores)
            running = torch.ones(len(want.sequences), dtype=torch.bool)
            for step, (g, w) in enumerate(zip((*got.scores, *got.logits), (*want.scores, *want.logits))):
                step %= len(want.scores)
                running = torch.ones_like(running) if not step else running
                assert g.shape == w.shape
                np.testing.assert_allclose(g[running], w[running], atol=1e-4, rtol=1e-4)
                running &= ~torch.isin(want.sequences[:, start + step], torch.tensor(model.generation_config.eos_token_id))


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_generate_gives_scores_of_beams(cls, prompts, rng):
    model = draw_generator(cls, rng)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.2)  # a token whose probability rounds to 1 leaves beams with one score
    accelerated = accelerate(model, fallback="raise")
    batch = {name: value[:prompts] for name, value in draw_batch(model, rng, "left").items()}
    settings = dict(num_beams=4, num_return_sequences=3, length_penalty=0.5, repetition_penalty=1.2, max_new_tokens=8)
    given = dict(**batch, do_sample=False, return_dict_in_generate=True, **settings)
    got, want = (m.generate(**given, output_scores=True, output_logits=True) for m in (accelerated, model))
    assert type(got) is type(want) and got.keys() == want.keys() - {"past_key_values", "encoder_attentions", "encoder_hidden_states"}
    same_ids(model, batch, got.sequences, want.sequences, **{"eos": model.generation_config.eos_token_id, **settings})
    if torch.equal(got.sequences, want.sequences):
        assert torch.equal(got.beam_indices, want.beam_indices) and got.beam_indices.dtype == want.beam_indices.dtype
        np.testing.assert_allclose(got.sequences_scores, want.sequences_scores, atol=1e-4, rtol=1e-4)
        moves = [m.compute_transition_scores(r.sequences, r.scores, r.beam_indices) for m, r in ((accelerated, got), (model, want))]
        np.testing.assert_allclose(*moves, atol=1e-4, rtol=1e-4)
        assert len(got.scores) == len(got.logits) == len(want.scores)
        for g, w in zip((*got.scores, *got.logits), (*want.scores, *want.logits)):
            assert g.shape == w.shape and g.dtype == w.dtype
            if prompts == 1:  # of several one ends before the others
                np.testing.assert_allclose(g, w, atol=1e-4, rtol=1e-4)
    plain = accelerated.generate(**given)
    assert torch.equal(plain.beam_indices, got.beam_indices) and plain.scores is plain.sequences_scores is None


def test_sampling(demo):
    """Draws come from PyTorch's generator: the same seed, the same ids; rows of a batch differ."""
    model, accelerated, tokenizer = demo["gpt2"]
    ids = tokenizer(["In the"] * 3, return_tensors="pt")

    def run(seed, **more):
        torch.manual_seed(seed)
        given = dict(do_sample=True, temperature=1.2, top_k=0, top_p=0.97, max_new_tokens=12, num_return_sequences=2)
        return accelerated.generate(**ids, **{**given, **more})

    first = run(1)
    assert first.shape[0] == 6 and torch.equal(first, run(1)) and not torch.equal(first, run(2))
    assert len({tuple(row) for row in first.tolist()}) == 6
    greedy = model.generate(**ids, do_sample=False, max_new_tokens=12)
    assert torch.equal(run(3, top_k=1, num_return_sequences=1), greedy)
    assert run(4, num_beams=2, num_return_sequences=1).shape[0] == 3


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
@pytest.mark.parametrize(
    "settings",
    [
        dict(top_k=0),
        dict(top_k=0, top_p=0.4),
        dict(top_k=0, min_p=0.2),
        dict(top_k=0, typical_p=0.5),
        dict(top_k=0, epsilon_cutoff=0.02),
        dict(top_k=0, eta_cutoff=0.02),
        dict(top_k=0, top_h=0.4),
        dict(top_k=5),
        dict(top_k=10**6, temperature=0.6),
        dict(),
        dict(temperature=1.5, top_k=20, top_p=0.8, repetition_penalty=1.4, renormalize_logits=True),
    ],
    ids=lambda s: "-".join(s) or "defaults",
)
def test_sampling_draws_from_the_same(settings, cls, beams, rng):
    """What a step draws from: the logits with what is excluded at -inf, for the first token."""
    model = draw_generator(cls, rng)
    ids = torch.from_numpy(rng.integers(4, model.config.vocab_size, (1, 6)))
    given = dict(do_sample=True, num_beams=beams, max_new_tokens=1, return_dict_in_generate=True, output_scores=True, **settings)
    [got], [want] = (m.generate(ids, **given).scores for m in (accelerate(model, fallback="raise"), model))
    at_edge = (got.isinf() != want.isinf()).sum()  # a sum of probabilities may reach its bound one token sooner
    assert at_edge <= beams and (at_edge == 0 or set(settings) & {"top_p", "typical_p", "top_h"})
    kept = ~got.isinf() & ~want.isinf()
    np.testing.assert_allclose(got[kept], want[kept], atol=1e-3, rtol=1e-4)


def test_streamers_and_criteria(demo):
    for name, prompt in (("gpt2", "In the morning"), ("t5", "harbour")):
        model, accelerated, tokenizer = demo[name]
        ids = tokenizer(prompt, return_tensors="pt")
        given = dict(**ids, do_sample=False, max_new_tokens=30)
        texts = []
        for m in (accelerated, model):
            streamer = transformers.TextIteratorStreamer(tokenizer)
            m.generate(**given, streamer=streamer)
            texts.append("".join(streamer))
        assert texts[0] == texts[1]
        whole = model.generate(**given)[0]
        word = tokenizer.decode(whole[-4:-2])

        class After(transformers.StoppingCriteria):
            def __call__(self, input_ids, scores, **kwargs):
                return torch.tensor([input_ids.shape[1] >= 8])

        class Odd(transformers.LogitsProcessor):
            def __call__(self, input_ids, scores):
                return scores.masked_fill(torch.arange(scores.shape[1])[None] % 2 == 0, -torch.inf)

        for more in (
            dict(stopping_criteria=[After()]),
            dict(stopping_criteria=[lambda input_ids, scores: input_ids.shape[1] >= 8]),  # a bool, as older ones give it
            dict(stopping_criteria=transformers.StoppingCriteriaList([After()]), logits_processor=[Odd()]),
            dict(logits_processor=transformers.LogitsProcessorList([Odd()])),
            dict(stop_strings=["zzz", word], tokenizer=tokenizer),
        ):
            got, want = (m.generate(**given, **more) for m in (accelerated, model))
            assert torch.equal(got, want), more
    model, accelerated, tokenizer = demo["gpt2"]
    tokenizer.pad_token = tokenizer.eos_token
    ids = tokenizer(["In the", "And it came"], return_tensors="pt", padding=True, padding_side="left")
    got, want = (
        m.generate(**ids, do_sample=False, max_new_tokens=25, stop_strings=["th", ","], tokenizer=tokenizer) for m in (accelerated, model)
    )
    assert torch.equal(got, want)


def test_threads_wait_for_room(demo):
    """More requests than there is room for, of several threads: each waits for its own."""
    model, _, tokenizer = demo["gpt2"]
    accelerated = accelerate(model, fallback="raise", kv_tokens=512)
    ids = [tokenizer([f"{i} and", f"{i} the", f"{i} but"], return_tensors="pt").input_ids for i in range(6)]
    want = [model.generate(one, do_sample=False, max_new_tokens=100) for one in ids]
    got = {}

    def work(i):
        got[i] = accelerated.generate(ids[i], do_sample=False, max_new_tokens=100)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[i], want[i]) for i in range(6))


def test_prompts_of_every_form(demo, rng):
    model, accelerated, tokenizer = demo["gpt2"]
    ids = tokenizer("In the morning", return_tensors="pt").input_ids
    for given in (dict(inputs=ids), dict(input_ids=ids), dict(), dict(inputs_embeds=model.get_input_embeddings()(ids).detach())):
        got, want = (m.generate(**given, do_sample=False, max_new_tokens=7, bos_token_id=0) for m in (accelerated, model))
        assert torch.equal(got, want), given
    model, accelerated, tokenizer = demo["t5"]
    ids = tokenizer(["harbour", "knight"], return_tensors="pt", padding=True)
    start = model.generate(**ids, do_sample=False, max_new_tokens=3)
    vectors = model.get_input_embeddings()(ids.input_ids).detach()
    for given in (dict(ids), dict(ids, decoder_input_ids=start), dict(inputs_embeds=vectors, attention_mask=ids.attention_mask)):
        for beams in (1, 3):
            got, want = (m.generate(**given, do_sample=False, num_beams=beams, max_new_tokens=9) for m in (accelerated, model))
            assert torch.equal(got, want), (list(given), beams)


def test_settings_without_effect(demo):
    """The library refuses them by name; transformers runs."""
    for name in ("gpt2", "t5"):
        model, accelerated, _ = demo[name]
        given = dict(do_sample=False, max_new_tokens=5)
        if name == "t5":
            given["decoder_input_ids"] = torch.tensor([[model.generation_config.decoder_start_token_id, 9, 8]])
        ids = torch.tensor([[5, 6, 7]])
        for more in (
            dict(forced_bos_token_id=7),
            dict(eos_token_id=[-1, 10**6], pad_token_id=0, min_new_tokens=3),
            dict(cache_implementation="static"),
            dict(pad_token_id=model.config.vocab_size + 1, output_scores=True, return_dict_in_generate=True),
        ):
            got, want = (m.generate(ids, **given, **more) for m in (accelerated, model))
            assert torch.equal(*(getattr(found, "sequences", found) for found in (got, want))), more
        got, want = (m.generate(ids.int(), **given) for m in (accelerated, model))
        assert torch.equal(got, want) and got.dtype == want.dtype


def test_generate_falls_back(demo, rng):
    class Same(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores

    class SeesScores(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([bool(scores[-1].max() > 1e9)])

    class Never(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids[:, 0] < 0

    for name, texts in (("gpt2", ["In the morning", "And it"]), ("t5", ["harbour", "eye"])):
        model, _, tokenizer = demo[name]
        accelerated = accelerate(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        ids = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        right = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")

        def call(ids=ids, **given):
            given = {**ids, "do_sample": False, "max_new_tokens": 5, **given}
            return lambda m: m.generate(**given)

        falls_back(accelerated, model, "of the caller's with more than", call(logits_processor=[Same()]))
        falls_back(
            accelerated,
            model,
            "takes a setting's place",
            call(logits_processor=[transformers.TemperatureLogitsWarper(0.5)], do_sample=False),
        )
        falls_back(accelerated, model, "stopping criteria", call(stopping_criteria=[Never()]))
        one = dict(input_ids=ids.input_ids[:1], attention_mask=torch.ones_like(ids.input_ids[:1]))
        with_scores = dict(stopping_criteria=[SeesScores()], output_scores=True, return_dict_in_generate=True)
        falls_back(accelerated, model, "that see scores", lambda m, c=call(**one, **with_scores): c(m).sequences)
        eos = transformers.StoppingCriteriaList([transformers.EosTokenCriteria([7, 8])])
        falls_back(accelerated, model, "EosTokenCriteria of the caller's", call(stopping_criteria=eos))
        past = transformers.StoppingCriteriaList([transformers.MaxTimeCriteria(5.0, initial_timestamp=time.time() - 100)])
        falls_back(accelerated, model, "max_time that has passed", call(stopping_criteria=past))
        falls_back(accelerated, model, r"suppress_ids: id 0 is \d+, outside", call(suppress_tokens=[10**6]))
        endless = dict(stop_strings=["a", "A"], tokenizer=tokenizer, eos_token_id=None, pad_token_id=0)
        falls_back(accelerated, model, "without eos_token_id", call(**endless))
        own = call(custom_generate=lambda model, input_ids, **given: transformers.GenerationMixin._sample(model, input_ids, **given))
        falls_back(accelerated, model, "custom_generate", own)
        falls_back(accelerated, model, "assisted", call(**one, assistant_model=model))
        falls_back(accelerated, model, "stop_strings with more", call(stop_strings=["q"], tokenizer=tokenizer, num_beams=2))
        falls_back(accelerated, model, "output_hidden_states", call(output_hidden_states=True, return_dict_in_generate=True))
        if name == "gpt2":
            falls_back(accelerated, model, "no_repeat_ngram_size with padding", call(no_repeat_ngram_size=2))
        falls_back(accelerated, model, "encoder_repetition_penalty with padding", call(encoder_repetition_penalty=1.3))
        falls_back(accelerated, model, "prefix_allowed_tokens_fn with", call(prefix_allowed_tokens_fn=allowed, forced_eos_token_id=5))
        if name == "gpt2":
            falls_back(accelerated, model, "on the right", call(**right))
        else:
            outputs = model.get_encoder()(**right)
            falls_back(
                accelerated, model, "encoder_outputs", call(encoder_outputs=outputs, attention_mask=right.attention_mask, input_ids=None)
            )
            falls_back(accelerated, model, "decoder_start_token_id", call(decoder_start_token_id=5))
        accelerated.train()
        with pytest.warns(FallbackWarning, match="training mode"):
            call()(accelerated)
        accelerated.eval()  # its modules are the model's
        strict = accelerate(model, fallback="raise")
        with pytest.raises(errors.UnsupportedError, match="output_attentions"):
            call(num_beams=2, output_attentions=True, return_dict_in_generate=True)(strict)
        with pytest.raises(ValueError, match="not used by the model"):
            call(num_beam=2)(strict)
        with pytest.raises(ValueError):
            call(temperature=-1.0, do_sample=True)(strict)

        def fails(*_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            call(prefix_allowed_tokens_fn=fails)(strict)
        with pytest.raises(errors.InvalidError, match="suppress_ids"):
            call(suppress_tokens=[10**6])(strict)
        assert call()(strict).shape[0] == 2


# ---- pipelines ----


def close(got, want):
    """Nested results: texts and positions equal, scores nearly."""
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            close(g, w)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            close(got[key], want[key])
    elif isinstance(want, (float, np.floating)):
        assert got == pytest.approx(want, abs=2e-5)
    else:
        assert got == want


TEXTS = ["the lord said unto moses where is thy brother and he said i know not", "who", "a b c " * 20]


def both(task, made_model, **options):
    model, accelerated, tokenizer = made_model
    return [pipeline(task, model=m, tokenizer=tokenizer, device="cpu", **options) for m in (accelerated, model)]


def load(made, cls, **settings):
    path = made(cls, **settings)
    model = getattr(transformers, cls).from_pretrained(path, dtype=torch.float32).eval()
    return model, accelerate(model, fallback="raise"), transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_ner_pipeline(demo, strategy):
    got, want = both("ner", demo["ner"], aggregation_strategy=strategy)
    close(silent(got, TEXTS), want(TEXTS))
    close(silent(got, TEXTS, batch_size=3), want(TEXTS, batch_size=3))
    assert "BertForTokenClassification" in repr(got)


def test_text_classification_pipeline(made):
    for settings in (dict(num_labels=4), dict(num_labels=3, problem_type="multi_label_classification"), dict(num_labels=1)):
        got, want = both("text-classification", load(made, "BertForSequenceClassification", **settings))
        close(silent(got, TEXTS, top_k=None), want(TEXTS, top_k=None))
        close(silent(got, TEXTS, batch_size=2), want(TEXTS, batch_size=2))
        close(silent(got, dict(text="a b", text_pair="c")), want(dict(text="a b", text_pair="c")))


def test_fill_mask_pipeline(made):
    got, want = both("fill-mask", load(made, "BertForMaskedLM"))
    close(silent(got, "the [MASK] of a"), want("the [MASK] of a"))
    close(silent(got, ["the [MASK] [MASK]", "[MASK] a b"], top_k=3), want(["the [MASK] [MASK]", "[MASK] a b"], top_k=3))


def test_feature_extraction_pipeline(made):
    got, want = both("feature-extraction", load(made, "BertModel"))
    for text in TEXTS:
        np.testing.assert_allclose(silent(got, text), want(text), atol=1e-5)


def test_text_generation_pipeline(demo):
    got, want = both("text-generation", demo["gpt2"])
    for options in (
        dict(max_new_tokens=12, do_sample=False),
        dict(max_new_tokens=8, do_sample=False, num_beams=3, num_return_sequences=2, return_full_text=False),
        dict(max_new_tokens=8, do_sample=False, return_tensors=True),
    ):
        assert silent(got, ["In the morning", "And"], **options) == want(["In the morning", "And"], **options)
    assert got("I", do_sample=True, max_new_tokens=4)[0]["generated_text"].startswith("I")


def test_question_answering_outputs(made):
    """transformers 5 has no such pipeline; what one does with the outputs works."""
    model, accelerated, tokenizer = load(made, "BertForQuestionAnswering")
    batch = tokenizer(["who a", "what"], ["the house of b", "c d e f"], return_tensors="pt", padding=True)
    same(silent(accelerated, **batch), silent(model, **batch), batch["attention_mask"])
