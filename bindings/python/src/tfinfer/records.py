"""What Model's methods return. Positions named start and end are half-open ranges of characters: text[start:end] in Python.

Shapes: L labels, N new tokens, P prompt tokens, T tokens, E width.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ModelInfo(NamedTuple):
    """Facts about an open model; the fields are those of tf_model_info in tfinfer.h, which explains them."""

    family: str
    architecture: str
    device: str
    dtype: str
    tasks: frozenset[str]
    layers: int
    heads: int
    head_size: int
    width: int
    input_width: int
    vocab_size: int
    type_count: int
    max_input_tokens: int
    embedding_width: int
    embedding_tokens: int
    pooled_width: int
    token_logits: int
    sequence_logits: int
    labels: tuple[str, ...]
    prompts: dict[str, str]
    default_prompt: str | None
    threads: int
    has_encoder: bool
    decoder_layers: int
    max_context_tokens: int
    bos_id: int
    eos_id: int
    pad_id: int
    decoder_start_id: int
    parameters: int


class Plan(NamedTuple):
    """Bytes that a model and its working memory take; tf_plan in tfinfer.h explains the fields."""

    weight_bytes: int
    mapped_bytes: int
    model_bytes: int
    session_bytes: int
    load_bytes: int
    third_party_bytes: int
    total_bytes: int
    kv_bytes: int


class Stats(NamedTuple):
    """What a model has done so far; tf_session_stats in tfinfer.h explains the fields."""

    calls: int
    steps: int
    sequences: int
    tokens: int
    bytes: int


class TokenizerInfo(NamedTuple):
    """Facts about a tokenizer; tf_tokenizer_info in tokenizer.h explains the fields. An id is -1 where there is no such token."""

    model: str
    vocab_size: int
    model_max_length: int
    unk_id: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    bos_id: int
    eos_id: int
    special_tokens_single: int
    special_tokens_pair: int
    lowercase: bool


class Classification(NamedTuple):
    """The best label of a text and its score; all labels' logits [L] and scores [L]. Without label names, label is its number."""

    label: str
    score: float
    logits: "NDArray[np.float32]"
    scores: "NDArray[np.float32]"


class Entity(NamedTuple):
    """A piece of text with a label; for an input of ids the text is "" and the ranges of it are 0."""

    label: str
    score: float
    text: str
    start: int
    end: int
    byte_start: int
    byte_end: int
    token_start: int
    token_end: int
    label_id: int


class Answer(NamedTuple):
    """A piece of the context; "no answer" has empty ranges."""

    text: str
    score: float
    start: int
    end: int
    byte_start: int
    byte_end: int
    token_start: int
    token_end: int


class Fill(NamedTuple):
    """A candidate for the mask with number `mask`, which stands at token `position`; token is its spelling in the vocabulary."""

    token: str
    score: float
    id: int
    position: int
    mask: int


class Encoded(NamedTuple):
    """Raw tensors of all inputs, float32; None where the checkpoint has no such output. T: the tokens of all inputs, one behind the other.

    hidden [layers asked for, T, E]; pooled [inputs, pooled_width]; token_logits [T, token_logits]; sequence_logits
    [inputs, sequence_logits]; starts [inputs + 1]: input i has the tokens starts[i] to starts[i + 1].
    """

    hidden: "NDArray[np.float32] | None"
    pooled: "NDArray[np.float32] | None"
    token_logits: "NDArray[np.float32] | None"
    sequence_logits: "NDArray[np.float32] | None"
    starts: "NDArray[np.int64]"


class Token(NamedTuple):
    """A new token of a sequence that is being generated, and what it adds to the text. id -1: the end of the text alone.

    finish is "none" until the last record of a sequence: "eos", "length", "stop", "time" or "cancelled".
    """

    sequence: int
    id: int
    text: str
    logprob: float
    finish: str


class Generated(NamedTuple):
    """One generated sequence: its new tokens alone.

    ids [N] int32; score: of beams, else 0; logprobs [N] and prompt_logprobs [P] where they were asked for, else None. stop_begin: where in
    the text a stop string begins, in characters, -1 if none ended it; stop_index: which one. beams [N] int32: the beam each token was drawn
    from, as Request.scores counts them; None without beams.
    """

    ids: "NDArray[np.int32]"
    text: str
    score: float
    finish: str
    cumulative_logprob: float
    logprobs: "NDArray[np.float32] | None"
    prompt_logprobs: "NDArray[np.float32] | None"
    stop_begin: int
    stop_index: int
    beams: "NDArray[np.int32] | None"
