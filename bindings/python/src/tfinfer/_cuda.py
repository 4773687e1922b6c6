"""Where pip put cuBLAS, for the model options' library_folder."""

from __future__ import annotations

import functools


@functools.cache
def library_folder() -> str | None:
    """The folder of libcublasLt of the package nvidia-cublas (the extra tfinfer[cuda]), or None if it is not installed."""
    import importlib.util  # not where device="cpu"
    import pathlib

    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(pathlib.Path(root).glob("*/lib/libcublasLt.so.*"), reverse=True):
            return str(file.parent)
    return None
