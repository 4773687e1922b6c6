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
from ._engine import REFUSALS, Engine, FallbackWarning, RefusedError, check_fallback, open_model, warn

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
    that the library has no place for: it is given back as it is, or UnsupportedError is raised. A later change of hf_model's weights or
    modules is such a thing too, unless it goes through a tensor's `data`.
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
    except REFUSALS as refusal:
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
    own["_compiled_call_impl"] = None  # what compile() made is hf_model's
    if engine.torch_model is None:
        own.update({name: {} for name in ("_parameters", "_buffers", "_modules")})
    vars(accelerated).update(own, _tfinfer=engine)
    return accelerated


@functools.cache
def _class_of(base: Any) -> Any:
    """A class of the same name: pipelines go by it."""

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return _forward.forward(self, self._tfinfer.model, base, args, kwargs)
        except RefusedError as reason:
            torch_model = self._tfinfer.fall_back(reason)
        return torch_model.forward(*args, **kwargs)  # without its hooks: this object's run

    kind = Generating if issubclass(base, transformers.GenerationMixin) else Accelerated
    return type(base.__name__, (kind, base), {"__module__": base.__module__, "__doc__": base.__doc__, "forward": forward})


class Accelerated:
    """What an accelerated model has in place of its class's own, besides forward."""

    _tfinfer: Engine
    config: Any
    training: bool
    _forward_hooks: Any
    _forward_pre_hooks: Any

    @property
    def device(self) -> torch.device:
        return self._tfinfer.device

    @property
    def dtype(self) -> torch.dtype:
        return self._tfinfer.dtype

    def _plain(self) -> Any:
        """This object without the library: its own mode, hooks and settings, and the forward of the PyTorch model."""
        plain: Any = object.__new__(type(self).__bases__[1])
        vars(plain).update(vars(self), forward=self._tfinfer.torch_model.forward, _compiled_call_impl=None)
        return plain

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if self._tfinfer.torch_model is None:  # or save_pretrained would write a file without weights
            raise errors.UnsupportedError("state_dict: this model holds no weights of PyTorch's")
        return self._tfinfer.torch_model.state_dict(*args, **kwargs)

    def _apply(self, function: Any, recurse: bool = True) -> Any:
        self._tfinfer.apply(function)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an accelerated model cannot be copied or pickled: do so with the PyTorch model")


class Generating(Accelerated):
    """The same where the class has generate(). Names that begin with _ are hooks of transformers' generate()."""

    @functools.wraps(transformers.GenerationMixin.generate)
    def generate(self, *args: Any, custom_generate: Any = None, **kwargs: Any) -> Any:
        try:
            if custom_generate is not None:
                raise RefusedError("custom_generate")
            return super().generate(*args, **kwargs)  # type: ignore[misc]
        except RefusedError as reason:
            self._tfinfer.fall_back(reason)
        return self._plain().generate(*args, custom_generate=custom_generate, **kwargs)

    def _get_deprecated_gen_repo(self, *args: Any, **kwargs: Any) -> Any:
        if (found := super()._get_deprecated_gen_repo(*args, **kwargs)) is not None:  # type: ignore[misc]
            raise RefusedError(found)
        return found

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
            prepare = getattr(self._plain(), _PREPARE)
            return prepare(inputs_tensor, before, model_input_name, generation_config)["encoder_outputs"]

        model_kwargs["encoder_outputs"] = _generate.Source(inputs_tensor, encode)
        return model_kwargs

    _prepare_encoder_decoder_kwargs_for_generation = _prepare_text_encoder_decoder_kwargs_for_generation  # in transformers 5.17

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: Any, *args: Any) -> None:
        """The library has its own. PyTorch's is made if the loop falls back, which it does for one of the caller's."""
        if model_kwargs.get("past_key_values") is None:
            generation_config._tfinfer_cache = args
        else:
            super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)  # type: ignore[misc]

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_sample", *args, **kwargs)

    def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_beam_search", *args, **kwargs)

    @functools.wraps(transformers.GenerationMixin._assisted_decoding)  # generate() looks at its parameters
    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop("_assisted_decoding", *args, **kwargs)

    def _loop(self, name: str, input_ids: Any, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **given: Any) -> Any:
        engine = self._tfinfer
        try:
            if name == "_assisted_decoding" or self.training:
                raise RefusedError("training mode" if self.training else "assisted decoding")
            if self._forward_hooks or self._forward_pre_hooks:
                raise RefusedError("hooks, which see each step of PyTorch's")
            loop = _generate.Loop(engine.model, input_ids, logits_processor, stopping_criteria, generation_config, given)
            return loop.run()
        except RefusedError as reason:
            engine.fall_back(reason)
        plain = self._plain()
        if isinstance(given.get("encoder_outputs"), _generate.Source):
            given["encoder_outputs"] = given["encoder_outputs"].outputs(input_ids.shape[0])
        if hasattr(generation_config, "_tfinfer_cache"):
            plain._prepare_cache_for_generation(generation_config, given, *generation_config._tfinfer_cache)
        settings = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria, "generation_config": generation_config}
        return getattr(plain, name)(input_ids, **settings, **given)
