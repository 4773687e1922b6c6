"""The keyword arguments of Model's methods. None, and leaving one out, mean what the checkpoint says, else the default given here.

Shapes: T tokens, E the model's input width, V its vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Progress = Callable[[int, int], object]
    LogitsProcessor = Callable[[int, NDArray[np.int32], NDArray[np.float32]], object]
    Array = Any  # a NumPy array, anything with __dlpack__ on the CPU (a torch tensor), or nested lists of numbers
    Texts = str | Sequence[str]


class ModelOptions(TypedDict, total=False):
    """Of Model.open and tfinfer.plan."""

    device: str | None  # "auto", "cpu", "cuda", "cuda:1"
    dtype: Literal["auto", "fp32", "tf32", "bf16", "fp16"] | None
    quantization: Literal["none", "int8", "fp8"] | None
    threads: int | None  # that compute; one a core
    memory_budget: int | None  # bytes of the model; no limit
    gemm_timing: bool | None  # of a GPU: time products and keep the fastest way; True
    gemm_file: str | None  # of a GPU: a file that keeps what was timed
    library_folder: str | None  # where libcublasLt lies; where the package nvidia-cublas has it, else where the system finds it
    mecab_dictionary: str | None  # of Japanese tokenizers: MeCab's dictionary folder
    stream: int | None  # a CUDA stream's address to work on; one of the model's own
    max_step_tokens: int | None  # tokens that one step computes; 2048, at least the longest sequence of the model
    max_sequences: int | None  # sequences that a step holds; 512
    session_memory_budget: int | None  # bytes of working memory; no limit
    kv_tokens: int | None  # tokens whose keys and values are held for generation; 4096, at least the model's longest sequence


class InputOptions(TypedDict, total=False):
    """Of every task."""

    pairs: Texts | None  # the second text of each input
    type_ids: Array | None  # [T] with ids: token types; a list of them with a list of ids. 0
    embeddings: Array | None  # [T, E] float32 in place of ids; with ids, rows for those that are -1. A list of them with a list
    progress: Progress | None  # called with (tokens done, tokens in all) once a step; an exception in it ends the call and comes out of it


class EmbedOptions(InputOptions, total=False):
    normalize: bool | None  # to length 1; what modules.json says, else False
    max_tokens: int | None  # longer texts are cut; what the checkpoint says
    prompt: str | None  # put before each text
    prompt_name: str | None  # one of info.prompts; the checkpoint's default


class ClassifyOptions(InputOptions, total=False):
    activation: Literal["none", "sigmoid", "softmax"] | None  # from logits to scores; what fits the checkpoint's labels
    truncate: bool | None  # cut texts that are too long; False: an error


class NerOptions(InputOptions, total=False):
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None  # as transformers' pipeline has it; "simple"
    truncate: bool | None  # cut texts that are too long; False: an error unless stride is given
    stride: int | None  # tokens that neighbouring windows of a text share that is too long; no windows
    keep_all: bool | None  # also what is labelled "O"; False


class AnswerOptions(InputOptions, total=False):
    top_k: int | None  # answers a question; 1
    max_answer_len: int | None  # tokens of an answer; 15
    max_seq_len: int | None  # tokens of a window, question and special tokens with it; 384
    doc_stride: int | None  # context tokens that neighbouring windows share; 128
    handle_impossible_answer: bool | None  # "no answer" may be one; False
    contexts: Array | None  # [2] with ids: first and one-past-last token of the context; [n, 2] with a list


class FillMaskOptions(InputOptions, total=False):
    top_k: int | None  # candidates a mask; 5
    targets: Array | None  # [n] ids: only these compete; the whole vocabulary
    mask_id: int | None  # the tokenizer's mask token


class GenerateOptions(TypedDict, total=False):
    """Names and meanings of transformers' GenerationConfig; what would have no effect is refused by name."""

    embeddings: Array | None  # [T, E] float32 in place of a prompt; with ids, rows for those that are -1
    # length, in tokens
    max_new_tokens: int | None  # 20
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    max_time: float | None  # seconds
    early_stopping: bool | Literal["never"] | None
    stop_strings: Texts | None
    eos_token_id: int | Sequence[int] | None
    # strategy
    do_sample: bool | None
    num_beams: int | None
    num_return_sequences: int | None
    length_penalty: float | None
    seed: int | None  # of sampling: the same numbers in any batch; 0
    # what acts on the logits
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None
    encoder_repetition_penalty: float | None
    repetition_penalty: float | None
    presence_penalty: float | None  # no part of transformers
    frequency_penalty: float | None  # no part of transformers
    no_repeat_ngram_size: int | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: Sequence[Sequence[int]] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    remove_invalid_values: bool | None
    exponential_decay_length_penalty: tuple[int, float] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    logits_processor: LogitsProcessor | None  # called with (sequence, ids [T], logits [V]); changes logits in place
    temperature: float | None
    top_h: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    renormalize_logits: bool | None
    # T5
    decoder_input_ids: Array | None  # [T] what the decoder begins with
    # what a result has besides
    logprobs: bool | None  # of each new token, before any processing
    prompt_logprobs: bool | None
    output_logits: bool | None  # each step's raw logits
    output_scores: bool | None  # each step's processed logits
    skip_special_tokens: bool | None  # in texts; True
    clean_up_tokenization_spaces: bool | None
