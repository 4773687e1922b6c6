"""Where cuBLAS is looked for, without a GPU: in what the package nvidia-cublas installs."""

import sys

import pytest
import tfinfer
from conftest import MODELS
from tfinfer import _cuda


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An import path that has what the test puts there alone."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    _cuda.library_folder.cache_clear()
    yield tmp_path
    _cuda.library_folder.cache_clear()


def test_none_is_installed(packages):
    assert _cuda.library_folder() is None


@pytest.mark.parametrize("place", ["nvidia/cu13/lib/libcublasLt.so.13", "nvidia/cublas/lib/libcublasLt.so.12"])
def test_it_is_found(packages, place):
    (packages / place).parent.mkdir(parents=True)
    (packages / place).touch()
    assert _cuda.library_folder() == str((packages / place).parent)


def test_the_extra_names_the_package():
    import importlib.metadata

    assert "nvidia-cublas>=13; extra == 'cuda'" in [r.replace('"', "'") for r in importlib.metadata.requires("tfinfer") or []]


def test_a_build_for_the_cpu_says_so():
    try:
        tfinfer.Model.open(MODELS / "gpt2-prose", device="cuda").close()
    except tfinfer.errors.UnsupportedError as error:
        assert "cuda" in str(error).lower() or "driver" in str(error).lower()
