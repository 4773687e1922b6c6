"""A model of transformers that runs on this library and takes the PyTorch model's place: in pipelines, as a function, in generate().

    from tfinfer.integrations.transformers import accelerate

    model = accelerate(BertForTokenClassification.from_pretrained(path))
    pipeline("ner", model=model, tokenizer=tokenizer)("Ada Lovelace was born in London.")

forward and the loops of generate are the library's; all else of the object, its class's.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import transformers

from .. import errors
from . import _forward, _generate
from ._engine import Engine, FallbackWarning, RefusedError, check_fallback, open_model, warn

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import ModelOptions
    from ._engine import Fallback

__all__ = ["FallbackWarning", "accelerate"]
M = TypeVar("M")
_PREPARE = next(  # its name in the transformers that is installed
    name
    for name in ("_prepare_text_encoder_decoder_kwargs_for_generation", "_prepare_encoder_decoder_kwargs_for_generation")
    if hasattr(transformers.GenerationMixin, name)
)


def accelerate(hf_model: M, *, fallback: Fallback = "warn", borrow: bool = False, **options: Unpack[ModelOptions]) -> M:
    """An object of hf_model's class, with the same arguments and outputs, that the library computes. Weights go from memory to memory.

    fallback: what the library cannot do is run by hf_model, with a FallbackWarning ("warn") or without ("silent"), or raises
    UnsupportedError ("raise"); with "raise" no weight of hf_model is held, so that `del hf_model` frees them. The same holds for a model
    that the library has no place for: it is given back as it is, or UnsupportedError is raised.
    to(), half() and so on change hf_model and open the library's model anew; with "raise" they cannot.
    borrow: use weights where they lie if the library has the same form of them; then hf_model must not change any more.
    options: of Model.open; the device is hf_model's and the number format what "auto" makes of its weights, unless they say otherwise.

    forward: input_ids [B, S] or inputs_embeds [B, S, E], on any device; padding at an end of a row is not computed, and is 0 in outputs.
    Outputs are on the input's device, have hf_model's dtype and no gradient, and no past_key_values.
    """
    check_fallback(fallback)
    if not isinstance(hf_model, transformers.PreTrainedModel):
        raise TypeError(f"hf_model must be a model of transformers, not {type(hf_model).__name__}")
    if isinstance(hf_model, Accelerated):
        raise TypeError("hf_model is accelerated already")
    given: Any = hf_model
    try:
        engine = Engine(lambda: open_model(given, {}, {}, borrow, dict(options)), given, fallback)
        _forward.output_class(given.__class__)
    except (RefusedError, errors.UnsupportedError, errors.NotFoundError) as refusal:
        accelerated: M = refused(given, refusal, fallback)
    else:
        accelerated = view(given, engine)
    return accelerated


def refused(torch_model: Any, refusal: Exception, fallback: Fallback) -> Any:
    """The model as it is, with a warning where that is wanted, or no return."""
    if fallback == "raise":
        raise errors.UnsupportedError(str(refusal)) from refusal
    if fallback == "warn":
        warn(f"{refusal}: the model stays PyTorch's")
    return torch_model


def view(hf_model: Any, engine: Engine) -> Any:
    """An object that has all that hf_model has, its modules too if it may fall back, but runs on the engine."""
    accelerated = object.__new__(_class_of(hf_model.__class__))
    own = dict(vars(hf_model))
    for name in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"):
        own[name] = type(own[name])(own[name])  # a hook on one is none on the other
    if engine.torch_model is None:
        own.update({name: {} for name in ("_parameters", "_buffers", "_modules")})
    vars(accelerated).update(own, _tfinfer=engine)
    return accelerated


@functools.cache
def _class_of(base: Any) -> Any:
    """A class of the same name: pipelines go by it."""

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        engine: Engine = self._tfinfer
        try:
            return _forward.forward(self, engine.model, base, args, kwargs)
        except RefusedError as reason:
            torch_model = engine.fall_back(reason)
        return torch_model(*args, **kwargs)

    return type(base.__name__, (Accelerated, base), {"__module__": base.__module__, "__doc__": base.__doc__, "forward": forward})


class Accelerated:
    """What an accelerated model has in place of its class's own, besides forward. Names that begin with _ are hooks of generate()."""

    _tfinfer: Engine
    config: Any
    training: bool

    @property
    def device(self) -> torch.device:
        return self._tfinfer.device

    @property
    def dtype(self) -> torch.dtype:
        return self._tfinfer.dtype

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if self._tfinfer.torch_model is None:  # or save_pretrained would write a file without weights
            raise errors.UnsupportedError("state_dict: this model holds no weights of PyTorch's")
        return self._tfinfer.torch_model.state_dict(*args, **kwargs)

    def _apply(self, function: Any, recurse: bool = True) -> Any:
        self._tfinfer.apply(function)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an accelerated model cannot be copied or pickled: do so with the PyTorch model")

    def _get_logits_processor(self, generation_config: Any, *args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
        generation_config._tfinfer_custom = list(logits_processor or [])  # for Loop; the settings are this call's own copy
        given = {"logits_processor": logits_processor, **kwargs}
        return super()._get_logits_processor(generation_config, *args, **given)  # type: ignore[misc]

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: Any, model_kwargs: Any, model_input_name: Any, generation_config: Any
    ) -> Any:
        """The encoder does not run yet; it does in PyTorch if the loop falls back."""
        before = dict(model_kwargs)

        def encode() -> Any:
            prepare = getattr(self._tfinfer.torch_model, _PREPARE)
            return prepare(inputs_tensor, before, model_input_name, generation_config)["encoder_outputs"]

        model_kwargs["encoder_outputs"] = _generate.Source(inputs_tensor, encode)
        return model_kwargs

    _prepare_encoder_decoder_kwargs_for_generation = _prepare_text_encoder_decoder_kwargs_for_generation  # in transformers 5.17

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_sample", *args, **kwargs)

    def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_beam_search", *args, **kwargs)

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_assisted_decoding", *args, **kwargs)

    def _loop(self, name: str, input_ids: Any, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **given: Any) -> Any:
        engine = self._tfinfer
        try:
            if name == "_assisted_decoding" or self.training:
                raise RefusedError("training mode" if self.training else "assisted decoding")
            loop = _generate.Loop(engine.model, input_ids, logits_processor, stopping_criteria, generation_config, given)
        except RefusedError as reason:
            torch_model = engine.fall_back(reason)
        else:
            return loop.run()
        if isinstance(given.get("encoder_outputs"), _generate.Source):
            given["encoder_outputs"] = given["encoder_outputs"].outputs(input_ids.shape[0])
        settings = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria, "generation_config": generation_config}
        return getattr(torch_model, name)(input_ids, **settings, **given)
