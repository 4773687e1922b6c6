"""The loops of generate(): what transformers has prepared for them into requests, and what those give into its outputs.

transformers' generate() checks its arguments, merges its settings and builds processors and stopping criteria; then it calls _sample or
_beam_search with all that, which is where this takes over. Each processor it built names the settings that are in effect.
Shapes: B prompts, R results a prompt, W columns of the (decoder's) prompt, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.generation import utils

from .. import errors
from .._inputs import Inputs
from ..model import Model
from ..records import Generated
from ..request import Request
from ._engine import RefusedError
from ._padding import Padding, numpy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a processor of transformers is there for. Those of lengths and of prefix_allowed_tokens_fn are treated by themselves.
_SETTINGS = {
    "SequenceBiasLogitsProcessor": "sequence_bias",
    "EncoderRepetitionPenaltyLogitsProcessor": "encoder_repetition_penalty",
    "RepetitionPenaltyLogitsProcessor": "repetition_penalty",
    "NoRepeatNGramLogitsProcessor": "no_repeat_ngram_size",
    "EncoderNoRepeatNGramLogitsProcessor": "encoder_no_repeat_ngram_size",
    "NoBadWordsLogitsProcessor": "bad_words_ids",
    "ForcedBOSTokenLogitsProcessor": "forced_bos_token_id",
    "ForcedEOSTokenLogitsProcessor": "forced_eos_token_id",
    "InfNanRemoveLogitsProcessor": "remove_invalid_values",
    "ExponentialDecayLengthPenalty": "exponential_decay_length_penalty",
    "SuppressTokensLogitsProcessor": "suppress_tokens",
    "SuppressTokensAtBeginLogitsProcessor": "begin_suppress_tokens",
    "TemperatureLogitsWarper": "temperature",
    "TopHLogitsWarper": "top_h",
    "TopKLogitsWarper": "top_k",
    "TopPLogitsWarper": "top_p",
    "MinPLogitsWarper": "min_p",
    "TypicalLogitsWarper": "typical_p",
    "EpsilonLogitsWarper": "epsilon_cutoff",
    "EtaLogitsWarper": "eta_cutoff",
    "LogitNormalization": "renormalize_logits",
}
_LENGTHS = ("MinLengthLogitsProcessor", "MinNewTokensLengthLogitsProcessor")
_PREFIX = "PrefixConstrainedLogitsProcessor"
# They look at the padding too, as transformers runs them: of the source, or of a prompt.
_SEE_PADDING = {
    True: ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),
    False: ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "forced_bos_token_id"),
}
# They act behind prefix_allowed_tokens_fn, and would undo what it forbids.
_BEHIND_PREFIX = ("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty")


class Source(dict[str, Any]):
    """Stands for encoder_outputs, which the library computes itself. Empty as a dict, so that nothing in it is expanded."""

    def __init__(self, inputs: Any, encode: Callable[[], Any]) -> None:
        super().__init__()
        self.inputs = inputs  # [B, S] ids or [B, S, E] embeddings
        self._encode = encode

    def outputs(self, rows: int) -> Any:
        """What PyTorch's encoder gives, each row as often as the decoder has rows for it."""
        found, times = self._encode(), rows // self.inputs.shape[0]
        return type(found)({k: v.repeat_interleave(times, 0) if torch.is_tensor(v) else v for k, v in found.items()})


class Loop:
    """One call of generate, behind its preparations."""

    def __init__(self, model: Model, input_ids: Any, processors: Any, criteria: Any, config: Any, given: dict[str, Any]) -> None:
        self.model, self.config, self.streamer = model, config, given.get("streamer")
        self.repeats: int = max(config.num_beams, config.num_return_sequences)
        self.results: int = config.num_return_sequences
        self.prompts = input_ids[:: self.repeats]  # [B, W]
        self.count, self.width = map(int, self.prompts.shape)
        self.options: dict[str, Any] = {}
        self.watching: list[Any] = []  # stopping criteria that only Python knows
        self.called: list[Any] = []  # logits processors that only Python knows
        self.prefix: Any = None  # the one of prefix_allowed_tokens_fn
        self._refuse(given)
        self._read_inputs(given)
        self._read_processors(processors)
        self._read_criteria(criteria)
        self._read_config()
        self._check_alone()

    def _refuse(self, given: dict[str, Any]) -> None:
        """Arguments behind which is more than this does."""
        if given.get("synced_gpus"):
            raise RefusedError("synced_gpus")
        if self.config.return_dict_in_generate:
            for name in ("output_attentions", "output_hidden_states"):
                if getattr(self.config, name):
                    raise RefusedError(name)
        cache = given.get("past_key_values")
        if cache is not None and (cache.get_seq_length() > 0 or getattr(cache, "_is_user_defined", False)):
            raise RefusedError("past_key_values of the caller's")
        for name in ("token_type_ids", "decoder_inputs_embeds", "encoder_hidden_states", "cross_attn_head_mask", "head_mask"):
            if given.get(name) is not None:
                raise RefusedError(name)

    def _read_inputs(self, given: dict[str, Any]) -> None:
        """The prompt's tokens (GPT-2), or the source's and what the decoder begins with (T5)."""
        mask = given.get("attention_mask")
        mask = None if mask is None else mask[:: self.repeats]
        if self.model.info.has_encoder:
            source = given.get("encoder_outputs")
            if not isinstance(source, Source):
                raise RefusedError("encoder_outputs of the caller's")
            main = source.inputs
            self.padding = Padding(tuple(main.shape[:2]), mask)
            self._read_decoder(given.get("decoder_attention_mask"))
        else:
            vectors = given.get("inputs_embeds")
            if vectors is not None and self.width:
                raise RefusedError("inputs_embeds together with input_ids")
            main = self.prompts if vectors is None else vectors[:: self.repeats]
            self.padding = Padding(tuple(main.shape[:2]), mask)
            positions = given.get("position_ids")
            if self.padding.right:
                raise RefusedError("a prompt with padding on the right")
            if positions is not None and not self.padding.counts(positions[:: self.repeats]):
                raise RefusedError("position_ids other than 0, 1, 2, ... from the first token on")
        rows = list(self.padding.rows(main))
        if main.dim() == 2:
            self.inputs = Inputs(rows, {}, self.model.info.input_width)
        else:
            self.inputs = Inputs(None, {"embeddings": rows}, self.model.info.input_width)

    def _read_decoder(self, mask: Any) -> None:
        if mask is not None and not bool((mask != 0).all()):
            raise RefusedError("decoder_attention_mask with padding")
        if not bool((self.prompts[:, 0] == self.model.info.decoder_start_id).all()):
            raise RefusedError("another decoder_start_token_id than the model's")

    def _read_processors(self, processors: Any) -> None:
        for processor in processors:
            name = type(processor).__name__
            if any(processor is own for own in self.config._tfinfer_custom):
                if name in _SETTINGS or name in _LENGTHS:
                    raise RefusedError(f"logits processor {name} of the caller's, which takes a setting's place")
                self.called.append(processor)
            elif name in _SETTINGS:
                self.options[_SETTINGS[name]] = getattr(self.config, _SETTINGS[name])
            elif name == _PREFIX:
                self.prefix = processor
            elif name not in _LENGTHS:
                raise RefusedError(f"logits processor {name}")
        if self.width > 1:  # forced behind a prompt of one token alone
            self.options.pop("forced_bos_token_id", None)
        for setting in _BEHIND_PREFIX if self.prefix is not None else ():
            if setting in self.options:
                raise RefusedError(f"prefix_allowed_tokens_fn with {setting}")
        seen = list(_SEE_PADDING[self.model.info.has_encoder])
        if not self.model.info.has_encoder and any(_counts_padding(processor) for processor in processors):
            seen.append("repetition_penalty")
        for setting in seen if self.padding.mask is not None else ():
            if setting in self.options:
                raise RefusedError(f"{setting} with padding")

    def _read_criteria(self, criteria: Any) -> None:
        eos: list[int] = []
        for criterion in criteria:
            if isinstance(criterion, utils.MaxTimeCriteria):
                left = criterion.initial_timestamp + criterion.max_time - time.time()
                if left <= 0:
                    raise RefusedError("max_time that has passed")
                self.options["max_time"] = left
            elif isinstance(criterion, utils.EosTokenCriteria):
                eos = criterion.eos_token_id.tolist()
            elif not isinstance(criterion, utils.MaxLengthCriteria):
                self.watching.append(criterion)
        own = self.config._eos_token_tensor
        if eos != ([] if own is None else own.tolist()):
            raise RefusedError("an EosTokenCriteria of the caller's")
        self.options["eos_token_id"] = [token for token in eos if 0 <= token < self.model.info.vocab_size]  # no other comes up
        self.options["max_new_tokens"] = (criteria.max_length or self.config.max_length) - self.width

    def _check_alone(self) -> None:
        """What is Python's sees one sequence at a time; transformers would show it all of them."""
        stops = [criterion for criterion in self.watching if isinstance(criterion, utils.StopStringCriteria)]
        if stops and self.repeats > 1:
            raise RefusedError("stop_strings with more than one sequence a prompt")
        if stops and self.count > 1 and not self.options["eos_token_id"]:
            raise RefusedError("stop_strings for several prompts without eos_token_id, where what has ended goes on")
        if len(self.watching) > len(stops) and self.config.return_dict_in_generate and self.config.output_scores:
            raise RefusedError("stopping criteria of the caller's that see scores")
        if (self.called or len(self.watching) > len(stops) or self.streamer is not None) and self.count * self.repeats > 1:
            raise RefusedError("stopping criteria, logits processors and streamers of the caller's with more than one sequence")

    def _read_config(self) -> None:
        config, options = self.config, self.options
        least = (config.min_length or 0) - self.width
        if options["eos_token_id"] and least > 0:
            options["min_new_tokens"] = min(least, options["max_new_tokens"])
        options["do_sample"] = bool(config.do_sample)
        if config.do_sample:
            options.setdefault("top_k", 0)  # no processor for it: transformers draws from all, the library from 50 unless told
        if config.num_beams > 1:
            names = ("num_beams", "length_penalty", "early_stopping")
            options.update({name: getattr(config, name) for name in names})
        if self.results > 1:
            options["num_return_sequences"] = self.results
        if config.return_dict_in_generate:
            options["output_scores"] = bool(config.output_scores)
            options["output_logits"] = bool(config.output_logits)
        self.seeds = torch.randint(2**31 - 1, (self.count,)).tolist() if config.do_sample else [0] * self.count

    def run(self) -> Any:
        """What the loop of transformers' would give."""
        rows = iter(range(self.count))
        try:
            found = self.model._each(self.inputs, self._given, lambda request: self._finish(request, next(rows)), patient=True)
        except errors.InvalidError as refusal:  # of settings that PyTorch may take, before the first token
            raise RefusedError(str(refusal)) from refusal
        if self.streamer is not None:
            self.streamer.end()
        results = [result for row in found for result in row[0]]
        fields = {"sequences": self._sequences([result.ids for result in results])}
        if not self.config.return_dict_in_generate:
            return fields["sequences"]
        if self.config.output_scores:
            fields["scores"] = self._steps([row[1] for row in found])
        if self.config.output_logits:
            fields["logits"] = self._steps([row[2] for row in found])
        if self.config.num_beams > 1:
            fields["beam_indices"] = self._beam_indices([result.beams for result in results])
            if self.config.output_scores:
                fields["sequences_scores"] = self.prompts.new_tensor([result.score for result in results], dtype=torch.float)
        beam = "Beam" if self.config.num_beams > 1 else ""
        kind = "EncoderDecoder" if self.model.info.has_encoder else "DecoderOnly"
        return getattr(utils, f"Generate{beam}{kind}Output")(**fields)

    def _given(self, row: int) -> dict[str, Any]:
        """The options of a prompt's request."""
        given = dict(self.options)
        if self.config.do_sample:
            given["seed"] = self.seeds[row]
        if self.model.info.has_encoder and self.width > 1:
            given["decoder_input_ids"] = numpy_of(self.prompts[row])
        if self.called or self.prefix is not None:
            given["logits_processor"] = self._processor(row)
        return given

    def _processor(self, row: int) -> Callable[[int, NDArray[np.int32], NDArray[np.float32]], None]:
        """The processors that only Python knows, over one sequence: ids as transformers has them, padding in front."""
        front = self.prompts[row, : int(self.padding.first[row])] if not self.model.info.has_encoder else self.prompts[row, :0]
        called = list(self.called)
        if self.prefix is not None:
            allowed = self.prefix._prefix_allowed_tokens_fn
            called.insert(0, utils.PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(row, ids), 1))

        def process(sequence: int, ids: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
            tokens = torch.cat([front, torch.from_numpy(ids).to(front)])[None]
            values = torch.from_numpy(logits)[None].to(front.device)
            for processor in called:
                values = processor(tokens, values)
            logits[:] = numpy_of(values[0])

        return process

    def _finish(self, request: Request, row: int) -> tuple[list[Generated], Any, Any]:
        """The results, and of each sequence that ran, or beam, the steps' logits that were asked for."""
        count = self._watch(request, row) if self.watching or self.streamer is not None else None
        results = [result._replace(ids=result.ids[:count]) for result in request.results()]
        kept: list[list[list[NDArray[np.float32]]] | None] = []
        for wanted, kind in ((self.config.output_scores, "processed"), (self.config.output_logits, "logits")):
            if not (wanted and self.config.return_dict_in_generate):
                kept.append(None)
            elif self.config.num_beams > 1:
                kept.append([self._of_beam(request, beam, kind) for beam in range(self.config.num_beams)])
            else:
                kept.append([[request.scores(s, i, kind) for s in range(len(result.ids))] for i, result in enumerate(results)])
        return results, kept[0], kept[1]

    def _of_beam(self, request: Request, beam: int, kind: str) -> list[NDArray[np.float32]]:
        """Of all steps of the search, which may go on when the best sequences have ended."""
        steps: list[NDArray[np.float32]] = []
        try:
            while True:
                steps.append(request.scores(len(steps), beam, kind))
        except errors.NotFoundError:
            return steps

    def _watch(self, request: Request, row: int) -> int:
        """Token by token, until a criterion ends it: how many there were."""
        ids = self.prompts[row : row + 1]
        for token in request:
            if token.id < 0:
                continue
            new = ids.new_tensor([[token.id]])
            ids = torch.cat([ids, new], dim=1)
            if self.streamer is not None:
                self.streamer.put(new[0].cpu())
            if any(bool(torch.as_tensor(criterion(ids, None)).all()) for criterion in self.watching):
                request.cancel()
                break
        return int(ids.shape[1]) - self.width

    def _sequences(self, new: list[NDArray[np.int32]]) -> Any:
        """[B * R, W + the most new ids], padding behind those that ended sooner."""
        full = self.prompts.new_full((len(new), max(map(len, new))), self._padding_id(), dtype=torch.long)
        for row, ids in zip(full, new):
            row[: len(ids)] = torch.from_numpy(ids)
        return torch.cat([self.prompts.repeat_interleave(self.results, 0), full], dim=1)

    def _beam_indices(self, beams: list[Any]) -> Any:
        """[B * R, the most new ids]: which row of a step's scores each id was drawn from; -1 behind those that ended sooner."""
        full = self.prompts.new_full((len(beams), max(map(len, beams))), -1, dtype=torch.int32)
        for i, (row, own) in enumerate(zip(full, beams)):
            row[: len(own)] = torch.from_numpy(own) + i // self.results * self.config.num_beams
        return full

    def _padding_id(self) -> int:
        """transformers' beam search takes a padding token 0 for none."""
        pad = self.config._pad_token_tensor
        if pad is None or (self.config.num_beams > 1 and not pad):
            eos = self.config._eos_token_tensor
            return 0 if eos is None else int(eos[0])
        return int(pad)

    def _steps(self, kept: list[list[list[NDArray[np.float32]]]]) -> tuple[Any, ...]:
        """[B * R, V] for each step, of beams [B * beams, V]; where a sequence had ended, the padding token has probability 1."""
        rows = [steps for row in kept for steps in row]
        ended = np.full(self.model.info.vocab_size, -np.inf, np.float32)
        if 0 <= self._padding_id() < len(ended):
            ended[self._padding_id()] = 0
        return tuple(
            torch.from_numpy(np.stack([row[step] if step < len(row) else ended for row in rows])).to(self.prompts.device)
            for step in range(max(map(len, rows)))
        )


def _counts_padding(processor: Any) -> bool:
    """Of the repetition penalty: transformers 5.17's does, 5.23's knows where the prompt begins."""
    return type(processor).__name__ == "RepetitionPenaltyLogitsProcessor" and getattr(processor, "prompt_ignore_length", None) is None
