"""accelerate() of models whose weights are on a GPU: tensors there in and out, and a model that moves there."""

import pytest
import tfinfer
import torch
from drop_in import draw, draw_batch, draw_generator, same, same_ids, silent
from tfinfer.integrations.transformers import accelerate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or PyTorch is built without CUDA")
BOUND = 1e-5
QUICK = dict(fallback="raise", gemm_timing=False)


def on_gpu(batch):
    return {name: tensor.cuda() for name, tensor in batch.items()}


@pytest.mark.parametrize(
    "cls",
    [
        "BertModel",
        "BertForTokenClassification",
        "RobertaForMaskedLM",
        "DistilBertForQuestionAnswering",
        "GPT2LMHeadModel",
        "T5EncoderModel",
    ],
)
def test_forward(cls, rng):
    model = draw(cls, rng).cuda()
    accelerated = accelerate(model, **QUICK)
    assert accelerated.device == model.device and accelerated._tfinfer.model.info.device == "cuda"
    batch = draw_batch(model, rng)
    want = silent(model, **on_gpu(batch), output_hidden_states=True)
    same(silent(accelerated, **on_gpu(batch), output_hidden_states=True), want, on_gpu(batch)["attention_mask"], BOUND)
    assert next(iter(silent(accelerated, **batch).values())).device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(dtype, rng):
    model = draw("BertForTokenClassification", rng).to("cuda", dtype)
    batch = on_gpu(draw_batch(model, rng))
    same(silent(accelerate(model, **QUICK), **batch), silent(model, **batch), batch["attention_mask"], 3e-2)


@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_generate(cls, rng):
    model = draw_generator(cls, rng).cuda()
    accelerated = accelerate(model, **QUICK)
    batch = on_gpu(draw_batch(model, rng, "left"))
    for settings in (dict(max_new_tokens=12), dict(max_new_tokens=8, num_beams=3, num_return_sequences=2)):
        got, want = (m.generate(**batch, do_sample=False, **settings) for m in (accelerated, model))
        assert got.device == want.device
        same_ids(model, batch, got, want, **{"eos": model.generation_config.eos_token_id, **settings})
    one = {name: tensor[-1:] for name, tensor in batch.items()}
    given = dict(return_dict_in_generate=True, output_scores=True, logits_processor=[lambda ids, scores: scores * 2], max_new_tokens=3)
    got, want = (m.generate(**one, do_sample=False, **given) for m in (accelerated, model))
    assert got.scores[0].device == want.scores[0].device
    torch.testing.assert_close(got.scores[0], want.scores[0], atol=1e-4, rtol=1e-4)


def test_it_moves(rng):
    model = draw("BertForTokenClassification", rng)
    batch = draw_batch(model, rng)
    want = silent(model, **batch)
    accelerated = accelerate(model, gemm_timing=False)
    assert accelerated.to("cuda") is accelerated and accelerated.device == model.device == torch.device("cuda:0")
    same(silent(accelerated, **on_gpu(batch)), silent(model, **on_gpu(batch)), on_gpu(batch)["attention_mask"], BOUND)
    same(silent(accelerated.cpu(), **batch), want, batch["attention_mask"])


def test_borrowed(rng):
    model = draw("BertForMaskedLM", rng).cuda()
    batch = on_gpu(draw_batch(model, rng))
    want = silent(model, **batch)
    accelerated = accelerate(model, borrow=True, **QUICK)
    del model
    same(silent(accelerated, **batch), want, batch["attention_mask"], BOUND)
    with pytest.raises(tfinfer.errors.UnsupportedError, match="stays on cuda"):
        accelerated.cpu()
