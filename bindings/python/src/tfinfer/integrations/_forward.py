"""forward() of encoders and of GPT-2: its arguments into tf_encode, and what that gives into the class's own output."""

from __future__ import annotations

import functools
import inspect
import typing
from typing import Any

import torch
from transformers import modeling_outputs
from transformers.utils import ModelOutput

from ..model import Model
from ..records import Encoded
from ._engine import RefusedError
from ._padding import Padding

_POSITIONS_BY_IDS = ("roberta", "camembert", "xlm-roberta")  # counted over what is not the padding token
_NO_POSITIONS = ("t5", "mt5")


@functools.cache
def output_class(kind: Any) -> Any:
    """The ModelOutput that forward of a class of transformers' gives."""
    if kind.__name__ in ("ElectraModel", "T5EncoderModel", "MT5EncoderModel"):  # they say otherwise
        return modeling_outputs.BaseModelOutputWithPastAndCrossAttentions
    annotation = typing.get_type_hints(kind.forward).get("return")
    for found in typing.get_args(annotation) or (annotation,):
        if isinstance(found, type) and issubclass(found, ModelOutput):
            return found
    raise RefusedError(f"{kind.__name__}.forward does not say what it gives")


@functools.cache
def signature(kind: Any) -> inspect.Signature:
    return inspect.signature(kind.forward)


def forward(hf: Any, model: Model, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What kind.forward(hf, *args, **kwargs) gives. hf: for its config and dtype."""
    bound = signature(kind).bind(hf, *args, **kwargs).arguments
    given = {name: value for name, value in bound.items() if value is not None}
    given.pop("self")
    given.update({name: value for name, value in given.pop("kwargs", {}).items() if value is not None})
    call = Call(hf, model, kind, given)
    output = output_class(kind)(**call.run())
    return output if call.return_dict else output.to_tuple()


class Call:
    """Takes what it knows out of `given`; what is left, and says more than the default does, is refused by its name."""

    def __init__(self, hf: Any, model: Model, kind: Any, given: dict[str, Any]) -> None:
        if "decoder_input_ids" in signature(kind).parameters:
            raise RefusedError(f"{kind.__name__}.forward (generate runs)")
        if hf.training or torch.jit.is_tracing():  # a trace would keep this call's numbers as constants
            raise RefusedError("training mode" if hf.training else "tracing")
        self.model, self.kind, self.config, self.dtype = model, kind, hf.config, hf.dtype
        self.ids, self.vectors = given.pop("input_ids", None), given.pop("inputs_embeds", None)
        if (self.ids is None) == (self.vectors is None):
            raise ValueError("one of input_ids and inputs_embeds must be given")
        self.types = given.pop("token_type_ids", None)
        self.return_dict: bool = given.pop("return_dict", getattr(hf.config, "return_dict", True))
        self.all_layers: bool = given.pop("output_hidden_states", getattr(hf.config, "output_hidden_states", False))
        if not isinstance(self.all_layers, bool):
            raise RefusedError("output_hidden_states of some layers")
        self.keep = given.pop("logits_to_keep", 0)
        self.main = self.ids if self.ids is not None else self.vectors
        if self.main.dim() != (2 if self.ids is not None else 3):
            raise RefusedError(f"input of shape {list(self.main.shape)}")
        self.padding = Padding(tuple(self.main.shape[:2]), given.pop("attention_mask", None))
        self.moved: Any = None  # [B, S, E] in place of the tokens, where their positions are not those that the library gives them
        self._read_positions(hf, given.pop("position_ids", None))
        if self.types is not None and not model.info.type_count:
            raise RefusedError(f"token_type_ids of {kind.__name__}")
        if kind.__name__ == "GPT2ForSequenceClassification":
            self._check_last_tokens()
        given.setdefault("output_attentions", getattr(hf.config, "output_attentions", False))
        for name, value in given.items():
            if value is not False:
                raise RefusedError(name)

    def _read_positions(self, hf: Any, positions: Any) -> None:
        """The library counts a sequence's tokens from 0, or as RoBERTa does. Without position_ids most classes count columns."""
        info, family = self.model.info, self.model.info.family
        if self.padding.left and family != "gpt2" and (info.pooled_width or info.sequence_logits):
            raise RefusedError(f"padding on the left of {self.kind.__name__}, whose head reads the first column")
        if family in _NO_POSITIONS:
            return
        if family in _POSITIONS_BY_IDS:
            if positions is not None:
                raise RefusedError(f"position_ids of {self.kind.__name__}")
            if self.padding.left and (self.ids is None or not self.padding.padding_is(self.ids, self.config.pad_token_id)):
                raise RefusedError(f"padding on the left of {self.kind.__name__} that is not config.pad_token_id")
        elif positions is not None:
            if not self.padding.counts(positions):
                self._move(hf, positions)
        elif self.padding.left:
            self._move(hf, torch.arange(self.padding.shape[1]))

    def _move(self, hf: Any, positions: Any) -> None:
        """What the wanted positions have more than the library's is added to the tokens' embeddings. positions: [B or 1, S] or [S]."""
        tables = [module for name, module in hf.named_modules() if name.endswith(("position_embeddings", "wpe"))]
        if not tables:
            raise RefusedError("positions other than 0, 1, 2, ... from the first token on, where no weight of PyTorch's is held")
        counted = (torch.arange(self.padding.shape[1]) - torch.from_numpy(self.padding.first)[:, None]).clamp(min=0)
        main, wanted, own = (ids.to(tables[0].weight.device) for ids in (self.main, positions, counted))
        tokens = main if self.ids is None else hf.get_input_embeddings()(main)
        self.moved = tokens.float() + tables[0](wanted).float() - tables[0](own).float()

    def _check_last_tokens(self) -> None:
        """Its logits are those of the last token that is not the padding token, whatever the mask says."""
        pad = self.config.pad_token_id
        if self.ids is None or (pad is None and self.padding.shape[0] > 1) or not self.padding.padding_is(self.ids, pad):
            raise RefusedError("a batch for GPT2ForSequenceClassification that is not padded with config.pad_token_id")

    def inputs(self) -> dict[str, Any]:
        """Its tokens as arguments of Model.encode and Model.embed."""
        tokens = self.padding.rows(self.main if self.moved is None else self.moved)
        inputs = {"inputs": tokens} if self.ids is not None and self.moved is None else {"embeddings": tokens}
        if self.types is not None:
            inputs["type_ids"] = self.padding.rows(self.types.expand(self.padding.shape))
        return inputs

    def run(self) -> dict[str, Any]:
        """The output's fields."""
        fields = output_class(self.kind).__dataclass_fields__
        layers = [self.model.info.layers] if "last_hidden_state" in fields else []
        if self.all_layers:
            layers = list(range(self.model.info.layers + 1))
        found = self._fields(self.model.encode(layers=layers, **self.inputs()), fields)
        return {name: value for name, value in found.items() if name in fields and value is not None}

    def _fields(self, encoded: Encoded, fields: Any) -> dict[str, Any]:
        """All fields that outputs of any class have, by their names there."""
        hidden = None if encoded.hidden is None else [self._tokens(layer) for layer in encoded.hidden]
        tokens = None if encoded.token_logits is None else self._tokens(encoded.token_logits)
        sequences = None if encoded.sequence_logits is None else self.like_input(torch.from_numpy(encoded.sequence_logits))
        found = {
            "last_hidden_state": hidden[-1] if hidden else None,
            "hidden_states": tuple(hidden) if hidden and self.all_layers else None,
            "pooler_output": None if encoded.pooled is None else self.like_input(torch.from_numpy(encoded.pooled)),
            "logits": sequences if tokens is None else self._kept(tokens),
            "prediction_logits": tokens,
            "seq_relationship_logits": sequences,
        }
        if "start_logits" in fields and tokens is not None:
            found["start_logits"], found["end_logits"] = (part.contiguous() for part in tokens.unbind(-1))
        if self.kind.__name__ == "ElectraForPreTraining" and tokens is not None:
            found["logits"] = tokens.squeeze(-1)
        return found

    def _kept(self, logits: Any) -> Any:
        return logits[:, -self.keep :] if isinstance(self.keep, int) else logits[:, self.keep]

    def _tokens(self, packed: Any) -> Any:
        return self.like_input(self.padding.spread(packed))

    def like_input(self, tensor: Any) -> Any:
        return tensor.to(self.main.device, self.dtype)
