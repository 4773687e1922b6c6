"""Models with random weights as transformers saves them, and what transformers computes with them in float64."""

import numpy as np
import torch
import transformers

FAMILIES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "camembert": "Camembert",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
}
ROBERTAS = ("roberta", "camembert", "xlm-roberta")
HEADS = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
CLASSES = [(family, prefix + head) for family, prefix in FAMILIES.items() for head in HEADS] + [
    ("bert", "BertForPreTraining"),
    ("electra", "ElectraForPreTraining"),
    ("bert", "BertForNextSentencePrediction"),
]

# What real configs do not hold but the library must take: each is tried with every class, the rest is drawn.
ODD = [
    dict(layers=1, heads=2, head_size=32, vocab=101, act="gelu", eps=1e-12, types=2, pad=0, range=0.02, ffn=96),
    dict(layers=2, heads=3, head_size=80, vocab=211, act="gelu_new", eps=1e-5, types=1, pad=1, range=0.1, ffn=100),
    dict(layers=3, heads=1, head_size=64, vocab=1009, act="relu", eps=1e-3, types=3, pad=3, range=0.05, ffn=257),
]


def config(
    family,
    rng,
    layers=2,
    heads=2,
    head_size=32,
    vocab=150,
    act="gelu",
    eps=1e-12,
    types=2,
    pad=0,
    range=0.05,
    ffn=128,
    tokens=512,
    **more
):
    """A configuration of `family` from our words for its settings; `more` goes to transformers as it is."""
    width = heads * head_size
    common = dict(vocab_size=vocab, pad_token_id=pad, initializer_range=range)
    if family == "distilbert":
        return transformers.DistilBertConfig(
            **common,
            dim=width,
            n_heads=heads,
            n_layers=layers,
            hidden_dim=ffn,
            activation=act,
            max_position_embeddings=tokens,
            sinusoidal_pos_embds=bool(rng.integers(2)),
            **more
        )
    if family in ROBERTAS:  # their positions start behind the padding token's id
        tokens += pad + 1
    if family == "electra":
        more.setdefault("embedding_size", int(rng.choice([width, 16, width + 8])))
    kind = getattr(transformers, FAMILIES[family] + "Config")
    return kind(
        **common,
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=ffn,
        hidden_act=act,
        layer_norm_eps=eps,
        type_vocab_size=types,
        max_position_embeddings=tokens,
        **more
    )


# Dialects of GPT-2 and T5 found in checkpoints, in transformers' own words; sizes are drawn.
GPT2_CLASSES = ["GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification", "GPT2ForTokenClassification"]
GPT2_DIALECTS = [
    dict(),
    dict(activation_function="gelu", scale_attn_by_inverse_layer_idx=True, n_inner=100),
    dict(activation_function="relu", scale_attn_weights=False, layer_norm_epsilon=1e-3),
    dict(activation_function="gelu_pytorch_tanh", reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    dict(activation_function="silu", n_inner=257, tie_word_embeddings=False),
]
T5_CLASSES = ["Model", "EncoderModel", "ForConditionalGeneration"]
T5_DIALECTS = [
    dict(feed_forward_proj="relu"),
    dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    dict(feed_forward_proj="gated-silu", relative_attention_num_buckets=16, relative_attention_max_distance=20),
    dict(feed_forward_proj="gelu", relative_attention_num_buckets=6, relative_attention_max_distance=300, layer_norm_epsilon=1e-4),
    dict(feed_forward_proj="relu", dense_act_fn="silu", is_gated_act=True),  # what counts are the latter two
]


def gpt2_config(rng, **more):
    heads = int(rng.integers(1, 5))
    sizes = dict(
        vocab_size=int(rng.integers(60, 400)),
        n_positions=160,
        n_layer=int(rng.integers(1, 4)),
        n_head=heads,
        n_embd=heads * int(rng.choice([8, 12, 32, 64, 80])),
        initializer_range=float(rng.choice([0.02, 0.05, 0.1])),
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2Config(**{**sizes, **more})


def t5_config(family, rng, **more):
    """Heads times head size is not the width; the decoder may be deeper than the encoder."""
    sizes = dict(
        vocab_size=int(rng.integers(60, 400)),
        d_model=int(rng.choice([24, 64, 100, 128])),
        d_kv=int(rng.choice([8, 13, 32, 64])),
        num_heads=int(rng.integers(1, 5)),
        d_ff=int(rng.choice([64, 100, 257])),
        num_layers=int(rng.integers(1, 4)),
        num_decoder_layers=int(rng.integers(1, 4)),
        initializer_factor=float(rng.choice([0.5, 1.0, 1.5])),
    )
    kind = transformers.MT5Config if family == "mt5" else transformers.T5Config
    return kind(**{**sizes, **more})


def build(cls, cfg, rng, heads_scale=1.0):
    """A model of class `cls` in which no parameter is left at zero or one, so that each one that is not read shows.
    heads_scale multiplies the task head's last weight, so that choices are far apart."""
    if cls.endswith("ForMultipleChoice") or "LMHead" in cls or "Causal" in cls:
        cfg.is_decoder = "LMHead" in cls or "Causal" in cls
    model = getattr(transformers, cls)(cfg).eval()
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            elif name.endswith(("LayerNorm.weight", "layer_norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                p.copy_(1 + torch.randn(p.shape, generator=generator) * 0.2)
            elif "relative_attention_bias" in name:
                p.copy_(torch.randn(p.shape, generator=generator))
            elif "embeddings" in name and p.dim() == 2:  # the padding row too, which transformers leaves at zero
                p.copy_(torch.randn(p.shape, generator=generator) * cfg.initializer_range)
            elif name.startswith(("classifier", "qa_outputs")) and p.dim() == 2:
                p.mul_(heads_scale)
    return model


def save(model, path, **options):
    model.save_pretrained(path, **options)
    return path


def load(path, cls, dtype=torch.float32):
    return getattr(transformers, cls).from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()


def load_double(path, cls):
    """The judge: weights read as float32, arithmetic in float64; that is more than reorder_and_upcast_attn casts to."""
    model = load(path, cls).double()
    for module in model.modules():
        if hasattr(module, "reorder_and_upcast_attn"):
            module.reorder_and_upcast_attn = False
    return model


def has_types(model):
    return model.config.model_type not in ("distilbert", "gpt2", "t5", "mt5")


def run(model, ids=None, types=None, embeddings=None):
    """transformers' outputs for each sequence alone, by our names, sequences packed one behind the other."""
    found = []
    for i in range(len(ids if ids is not None else embeddings)):
        given = {}
        if ids is not None:
            given["input_ids"] = torch.tensor(np.asarray(ids[i]), dtype=torch.long)[None]
        else:
            given["inputs_embeds"] = torch.tensor(embeddings[i], dtype=model.dtype)[None]
        n = len(ids[i] if ids is not None else embeddings[i])
        given["attention_mask"] = torch.ones(1, n, dtype=torch.long)
        if has_types(model):
            given["token_type_ids"] = torch.tensor(types[i] if types is not None else [0] * n, dtype=torch.long)[None]
        with torch.no_grad():
            found.append(by_our_names(model, model(**given, output_hidden_states=True)))
    return {name: np.concatenate([f[name] for f in found], axis=1 if name == "hidden" else 0) for name in found[0]}


def by_our_names(model, out):
    """One sequence's outputs: hidden [layers + 1, n, width], pooled [1, width], token_logits [n, k], sequence_logits [1, k]."""

    def array(t):
        return t.double().numpy()

    named = {"hidden": array(torch.cat(out.hidden_states))}
    if getattr(model.base_model, "pooler", None) is not None:  # models with a head have it too, but do not return it
        with torch.no_grad():
            named["pooled"] = array(model.base_model.pooler(out.hidden_states[-1]))
    if "start_logits" in out:
        named["token_logits"] = array(torch.stack([out.start_logits[0], out.end_logits[0]], dim=-1))
    if "prediction_logits" in out:
        named["token_logits"], named["sequence_logits"] = array(out.prediction_logits[0]), array(out.seq_relationship_logits)
    if "logits" in out:
        kind = type(model).__name__
        logits = array(out.logits)
        if kind == "ElectraForPreTraining":
            named["token_logits"] = logits.reshape(-1, 1)
        elif kind.endswith(("ForSequenceClassification", "ForNextSentencePrediction")):
            named["sequence_logits"] = logits.reshape(1, -1)
        else:
            named["token_logits"] = logits[0]
    return named


def draw_ids(rng, cfg, lengths):
    """Random ids over the whole vocabulary, the padding token among them, and random token types."""
    ids = [rng.integers(0, cfg.vocab_size, n) for n in lengths]
    for s in ids if cfg.pad_token_id is not None else []:
        s[rng.random(len(s)) < 0.05] = cfg.pad_token_id
    types = None
    if cfg.model_type not in ("distilbert", "gpt2", "t5", "mt5"):
        types = [rng.integers(0, cfg.type_vocab_size, n) for n in lengths]
    return ids, types


def draw_lengths(rng, most=512):
    """Lengths of a call: the shortest, the longest and some between, shuffled."""
    lengths = [1, most, 2, *rng.integers(3, most // 4, 4), int(rng.integers(most // 4, most))]
    return [int(n) for n in rng.permutation(lengths)]
