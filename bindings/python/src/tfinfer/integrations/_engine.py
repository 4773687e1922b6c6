"""What stands behind an accelerated model: the library's model, and the PyTorch model that takes over what it cannot do."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from .. import errors
from ..model import Model

if TYPE_CHECKING:
    Fallback = Literal["warn", "silent", "raise"]

FALLBACKS = ("warn", "silent", "raise")
_PASSED_THROUGH = ("tfinfer", "torch", "transformers", "sentence_transformers")


class FallbackWarning(UserWarning):
    """PyTorch runs a call, or a model, because tfinfer cannot; the text says what it is."""


class RefusedError(Exception):
    """What the library cannot do as PyTorch does, by name."""


class Engine:
    """`torch_model` is None where nothing may fall back: then no weight of PyTorch's is held.

    open_call: makes the library's model of what torch_model is now; it may hold torch_model's weights.
    """

    def __init__(self, open_call: Callable[[], Model], torch_model: Any, fallback: Fallback) -> None:
        self.model = open_call()
        self.fallback: Fallback = fallback
        self.device, self.dtype = torch_model.device, torch_model.dtype
        self.torch_model: Any = None if fallback == "raise" else torch_model
        self._open = None if fallback == "raise" else open_call

    def apply(self, function: Callable[[Any], Any]) -> None:
        """What to(), cuda(), half() and so on do to each tensor: the PyTorch model's and, opened anew, the library's model."""
        there = function(torch.empty(0, dtype=self.dtype, device=self.device))
        if (there.device, there.dtype) == (self.device, self.dtype):
            return
        if self._open is None:
            raise errors.UnsupportedError(f'with fallback="raise" a model stays on {self.device} in {self.dtype}: move PyTorch\'s before')
        self.torch_model._apply(function)
        self.device, self.dtype = self.torch_model.device, self.torch_model.dtype
        self.model = self._open()

    def fall_back(self, reason: RefusedError) -> Any:
        """The PyTorch model, with a warning where that is wanted, or no return."""
        if self.torch_model is None:
            raise errors.UnsupportedError(str(reason)) from None
        if self.fallback == "warn":
            warn(f"{reason}: PyTorch runs this call")
        return self.torch_model


def warn(text: str) -> None:
    """A FallbackWarning that points at the caller's code, not at what it passed through."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in _PASSED_THROUGH:
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
    if hf_model.device.type == "cuda":
        torch.cuda.synchronize(hf_model.device)  # the library waits for no stream of PyTorch's
    options.setdefault("device", str(hf_model.device))
    weights = {name: t for name, t in hf_model.state_dict().items() if t.is_floating_point()}
    label = getattr(hf_model, "name_or_path", "") or kind.__name__
    return Model.open_source({**_files(hf_model), **files}, {**weights, **tensors}, borrow=borrow, label=label, **options)


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
