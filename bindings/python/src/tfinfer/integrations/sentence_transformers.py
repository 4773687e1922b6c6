"""A SentenceTransformer that runs on this library: transformer, pooling, dense layers and normalisation, with encode() as it is.

    from tfinfer.integrations.sentence_transformers import accelerate

    model = accelerate(SentenceTransformer("all-MiniLM-L6-v2"))
    vectors = model.encode(["A cat sat on the mat.", "The kitten rests on a rug."])  # [2, 384]

Texts become ids as before; what happens to the ids is the library's.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import inspect
import json
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import transformers
from sentence_transformers import SentenceTransformer

from .. import errors
from ..model import Model
from . import _forward
from . import transformers as hf
from ._engine import REFUSALS, Engine, FallbackWarning, RefusedError, check_fallback, hooked, open_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import ModelOptions
    from ._engine import Fallback

__all__ = ["FallbackWarning", "accelerate"]
M = TypeVar("M")
_EMBEDDING = "sentence_embedding"
_BUILT = ("torch.nn.", "transformers.", "sentence_transformers.")


def accelerate(model: M, *, fallback: Fallback = "warn", borrow: bool = False, **options: Unpack[ModelOptions]) -> M:
    """A SentenceTransformer with the same arguments and outputs as `model`, that the library computes; encode() gives equal embeddings.

    encode() for sentence embeddings [n, E] runs on the library as a whole. Other outputs, and models with modules that the library does not
    have, run the transformer alone on it, and the modules behind it in PyTorch. fallback, borrow and options are those of
    tfinfer.integrations.transformers.accelerate, and concern the transformer.
    """
    check_fallback(fallback)
    if not isinstance(model, SentenceTransformer):
        raise TypeError(f"model must be a SentenceTransformer, not {type(model).__name__}")
    if isinstance(model, Accelerated):
        raise TypeError("model is accelerated already")
    torch_model: Any = model.transformers_model
    try:
        if not isinstance(torch_model, transformers.PreTrainedModel):
            raise RefusedError("a SentenceTransformer without a model of transformers")
        if isinstance(torch_model, hf.Accelerated):
            raise RefusedError("a SentenceTransformer whose transformer is accelerated already")
        engine, whole = _open(model, torch_model, fallback, borrow, dict(options))
        _forward.output_class(torch_model.__class__)
    except REFUSALS as refusal:
        accelerated: M = hf.refused(model, refusal, fallback)
    else:
        accelerated = _view(model, hf.view(torch_model, engine), whole)
    return accelerated


def _open(model: Any, torch_model: Any, fallback: Fallback, borrow: bool, options: dict[str, Any]) -> tuple[Engine, bool]:
    """The library's model, and whether it has all of the modules."""

    def whole() -> Model:
        return open_model(torch_model, *_modules(model, torch_model), borrow, dict(options))

    def alone() -> Model:
        return open_model(torch_model, {}, {}, borrow, dict(options))

    try:
        return Engine(whole, torch_model, fallback, model), True
    except (RefusedError, errors.UnsupportedError):
        return Engine(alone, torch_model, fallback), False


def _modules(model: Any, torch_model: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """What save() would write of the modules: files and tensors by name."""
    files: dict[str, str] = {}
    tensors: dict[str, Any] = {}
    listed = []
    for name, part in model.named_modules():
        if name and (hooked(part) or not type(part).__module__.startswith(_BUILT)):
            raise RefusedError(f"the module {name}, which is not as it was built")
    for i, module in enumerate(model):
        kind = type(module)
        names = [getattr(module, name, _EMBEDDING) for name in ("module_input_name", "module_output_name")] if i else []
        if not kind.__module__.startswith("sentence_transformers.") or any(name != _EMBEDDING for name in names):
            raise RefusedError(f"the module {kind.__name__}")
        folder = f"{i}_{kind.__name__}" if i else ""
        listed.append({"idx": i, "name": str(i), "path": folder, "type": f"{kind.__module__}.{kind.__name__}"})
        if i:
            files[f"{folder}/config.json"] = json.dumps(module.get_config_dict())
            tensors.update({f"{folder}/{name}": tensor for name, tensor in module.state_dict().items()})
        elif not _gives_last_hidden(module):
            raise RefusedError("a Transformer module that does not give the last hidden state")
    files["modules.json"] = json.dumps(listed)
    return files, tensors


def _gives_last_hidden(module: Any) -> bool:
    """Of the transformer module, for texts."""
    text = getattr(module, "modality_config", {}).get("text", {})
    return (text.get("method"), text.get("method_output_name")) in (
        ("forward", "last_hidden_state"),
        ("forward", ("last_hidden_state",)),
    )


def _view(model: Any, transformer: Any, whole: bool) -> Any:
    """An object that has all that model has, but for its transformer."""
    first = copy.copy(model[0])
    first._modules = {name: transformer if isinstance(m, transformers.PreTrainedModel) else m for name, m in first._modules.items()}
    accelerated = object.__new__(_class_of(model.__class__))
    modules = {**model._modules, next(iter(model._modules)): first}
    vars(accelerated).update(vars(model), _modules=modules, _tfinfer=transformer, _tfinfer_whole=whole)
    return accelerated


@functools.cache
def _class_of(base: Any) -> Any:
    signature = inspect.signature(base.encode)

    @functools.wraps(base.encode)
    def encode(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = signature.bind(self, *args, **kwargs).arguments.get("output_value", _EMBEDDING)
        token = _embedding_alone.set(output == _EMBEDDING)
        try:
            return base.encode(self, *args, **kwargs)
        finally:
            _embedding_alone.reset(token)

    @functools.wraps(base.forward)
    def forward(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        if self._tfinfer_whole and _embedding_alone.get() and not kwargs and (embedding := self._embed(input)) is not None:
            input[_EMBEDDING] = embedding
            return input
        return base.forward(self, input, **kwargs)

    own = {"__module__": base.__module__, "__doc__": base.__doc__, "encode": encode, "forward": forward}
    return type(base.__name__, (Accelerated, base), own)


_embedding_alone = contextvars.ContextVar("embedding_alone", default=False)  # forward is inside an encode() that wants nothing else
_FEATURES = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


class Accelerated:
    """What an accelerated SentenceTransformer has in place of its class's own, besides encode and forward."""

    _tfinfer: Any  # the accelerated transformer

    def _embed(self, features: dict[str, Any]) -> Any:
        """[n, E], or None where the modules have to run one by one."""
        transformer, kind = self._tfinfer, self._tfinfer.__class__
        if "prompt_length" in features and not self[1].include_prompt:  # type: ignore[index]
            return None
        declared = _forward.signature(kind).parameters
        given = {name: features[name] for name in _FEATURES if name in declared and features.get(name) is not None}
        try:
            call = _forward.Call(transformer, transformer._tfinfer.model, kind, given)
        except RefusedError:
            return None
        return call.like_input(torch.from_numpy(call.model.embed(**call.inputs())))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an accelerated model cannot be copied or pickled: do so with the PyTorch model")
