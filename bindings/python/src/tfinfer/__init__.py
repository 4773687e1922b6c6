"""Transformer inference straight from Hugging Face directories: BERT, GPT-2 and T5, without PyTorch.

    import tfinfer

    with tfinfer.Model.open("all-MiniLM-L6-v2") as model:
        vectors = model.embed(["A cat sat on the mat.", "The kitten rests on a rug."])  # [2, 384] float32

Model has the tasks, Tokenizer is a tokenizer by itself; options says what keywords there are, records what comes back, errors what is
raised.
"""

from typing import TYPE_CHECKING
from typing import Any as _Any

from . import errors, records
from ._library import lib as _lib
from .encoding import BatchEncoding
from .errors import Error
from .model import Model, plan
from .request import Request
from .tokenizer import TextStream, Tokenizer

if TYPE_CHECKING:
    from . import options

__version__: str = _lib.tf_version().decode()
__all__ = [
    "BatchEncoding",
    "Error",
    "Model",
    "Request",
    "TextStream",
    "Tokenizer",
    "errors",
    "options",
    "plan",
    "records",
]


def __getattr__(name: str) -> _Any:
    if name != "options":  # of use to type checkers and readers: no import of it in every start
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module(".options", __name__)
