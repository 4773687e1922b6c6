"""What stands behind an accelerated model: the library's model, and the PyTorch model that takes over what it cannot do."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .. import errors
from ..model import Model

if TYPE_CHECKING:
    Fallback = Literal["warn", "silent", "raise"]

FALLBACKS = ("warn", "silent", "raise")
_PASSED_THROUGH = ("tfinfer", "torch", "transformers", "sentence_transformers")
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class FallbackWarning(UserWarning):
    """PyTorch runs a call, or a model, because tfinfer cannot; the text says what it is."""


class RefusedError(Exception):
    """What the library cannot do as PyTorch does, by name."""


# What keeps a model, or a call, with PyTorch. CORRUPT is a shape that config.json does not say: a module in the place of another.
REFUSALS = (RefusedError, errors.UnsupportedError, errors.NotFoundError, errors.CorruptError)


class Engine:
    """`torch_model` is None where nothing may fall back: then no weight of PyTorch's is held.

    open_call: makes the library's model of what torch_model is now; it may hold torch_model's weights.
    whole: the module that open_call reads, if it is more than torch_model.
    """

    def __init__(self, open_call: Callable[[], Model], torch_model: Any, fallback: Fallback, whole: Any = None) -> None:
        self.fallback: Fallback = fallback
        self.device, self.dtype = torch_model.device, torch_model.dtype
        self._opened: Model | Exception = open_call()
        self.torch_model: Any = None
        self._modules: list[Any] = []
        self._weights: list[Any] = []
        if fallback != "raise":
            self.torch_model, self._whole, self._open = torch_model, whole or torch_model, open_call
            self._remember()

    @property
    def model(self) -> Model:
        """The library's, as long as it has what PyTorch's consists of."""
        if isinstance(self._opened, Exception):
            raise RefusedError(str(self._opened))
        for part, place, name, held in self._modules:
            if place.get(name) is not held:
                raise _changed(part, name)
        for part, place, name, held, address, writes in self._weights:
            if place.get(name) is not held or held.data_ptr() != address or (writes is not None and held._version != writes):
                raise _changed(part, name)
        return self._opened

    def _remember(self) -> None:
        """Where each module and weight is held, and the weights' memory and how often it was written to, but through `data`."""
        for part, module in self._whole.named_modules():
            self._modules += [(part, module._modules, name, held) for name, held in module._modules.items()]
            for name, held in module._parameters.items():
                if held is not None:
                    writes = None if held.is_inference() else held._version
                    self._weights.append((part, module._parameters, name, held, held.data_ptr(), writes))

    def apply(self, function: Callable[[Any], Any]) -> None:
        """What to(), cuda(), half() and so on do to each tensor: the PyTorch model's and, opened anew, the library's model."""
        there = function(torch.empty(0, dtype=self.dtype, device=self.device))
        if (there.device, there.dtype) == (self.device, self.dtype):
            return
        if self.torch_model is None:
            raise errors.UnsupportedError(f'with fallback="raise" a model stays on {self.device} in {self.dtype}: move PyTorch\'s before')
        self.torch_model._apply(function)
        self.device, self.dtype = self.torch_model.device, self.torch_model.dtype
        self._opened = RefusedError("a model that could not be opened anew")
        self._modules, self._weights = [], []
        try:
            self._opened = self._open()
        except REFUSALS as refusal:
            self._opened = refusal
        self._remember()

    def fall_back(self, reason: RefusedError) -> Any:
        """The PyTorch model, with a warning where that is wanted, or no return."""
        if self.torch_model is None:
            raise (reason.__cause__ or errors.UnsupportedError(str(reason))) from None
        if self.fallback == "warn":
            warn(f"{reason}: PyTorch runs this call")
        return self.torch_model


def _changed(part: str, name: str) -> RefusedError:
    return RefusedError(f"{part}.{name}, which has changed since accelerate()".removeprefix("."))


def warn(text: str) -> None:
    """A FallbackWarning that points at the caller's code, not at what it passed through."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_THROUGH:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, FallbackWarning, stacklevel=level)


def check_fallback(fallback: str) -> None:
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {', '.join(FALLBACKS)}, not {fallback!r}")


def open_model(hf_model: Any, files: dict[str, str], tensors: dict[str, Any], borrow: bool, options: dict[str, Any]) -> Model:
    """The library's model of a live one; on its device unless `options` say otherwise. files and tensors: what there is besides."""
    kind = type(hf_model)
    if not kind.__module__.startswith("transformers.models."):
        raise RefusedError(f"{kind.__qualname__} is no class of transformers'")
    if "forward" in vars(hf_model):
        raise RefusedError(f"this {kind.__name__} has a forward of its own, as hooks or a device map give it")
    if hf_model.dtype == torch.float64 and options.get("dtype") is None:
        raise RefusedError("a float64 model needs dtype=, which says what to compute in")
    attention = ALL_ATTENTION_FUNCTIONS.get(hf_model.config._attn_implementation)
    if not getattr(getattr(attention, "func", attention), "__module__", "transformers.").startswith("transformers."):
        raise RefusedError(f"attention by {hf_model.config._attn_implementation}, which is no function of transformers'")
    weights = {name: t for name, t in hf_model.state_dict().items() if torch.is_tensor(t) and t.is_floating_point()}
    _check_weights(weights)
    if hf_model.device.type == "cuda":
        torch.cuda.synchronize(hf_model.device)  # the library waits for no stream of PyTorch's
    options.setdefault("device", str(hf_model.device))
    label = getattr(hf_model, "name_or_path", "") or kind.__name__
    model = Model.open_source({**_files(hf_model), **files}, {**weights, **tensors}, borrow=borrow, label=label, **options)
    _check_modules(hf_model)  # of a class that is built
    return model


def _check_weights(weights: dict[str, Any]) -> None:
    for name, weight in weights.items():
        if weight.device.type not in ("cpu", "cuda") or weight.dtype not in _DTYPES:
            raise RefusedError(f"{name} is {weight.dtype} on {weight.device}")
    shared: Any = weights.get("shared.weight")  # T5's, of which the library has one
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight") if shared is not None else ():
        own = weights.get(name)
        if own is not None and own.data_ptr() != shared.data_ptr() and not torch.equal(own, shared):
            raise RefusedError(f"{name} is not shared.weight")


def _check_modules(hf_model: Any) -> None:
    """That it is what its class makes of its configuration. Adapters, hooks and other modules compute what no weight shows."""
    with torch.device("meta"):
        made = dict(type(hf_model)(copy.deepcopy(hf_model.config)).named_modules())
    for name, module in hf_model.named_modules():
        if name not in made or _form(module) != _form(made[name]):
            raise RefusedError(f"{name or type(hf_model).__name__} is not what the configuration makes of it")
        if name and hooked(module):  # the model's own hooks go with the view
            raise RefusedError(f"{name} has hooks, or a forward of its own")


def hooked(module: Any) -> bool:
    """Whether more happens in it than its class says; transformers' own hooks only look."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return "forward" in vars(module) or any(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)


def _form(module: Any) -> tuple[type, list[str], str]:
    """What it computes, but for its weights; dropout is nothing."""
    return type(module), sorted(module._parameters), "" if isinstance(module, torch.nn.Dropout) else module.extra_repr()


def _files(hf_model: Any) -> dict[str, str]:
    """What save_pretrained would write beside the weights; of the generation settings only the ids that mean the same in every call."""
    config = json.loads(hf_model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(hf_model).__name__]
    settings = getattr(hf_model, "generation_config", None)
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    ids = {name: getattr(settings, name, None) for name in names}
    return {
        "config.json": json.dumps(config),
        "generation_config.json": json.dumps({name: value for name, value in ids.items() if value is not None}),
    }
