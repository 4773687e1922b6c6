"""Every Python block of the documentation runs as it stands, one after the other, in a folder that has the models."""

import re

import pytest
from conftest import MODELS, ROOT

PAGES = ["docs/python.md", "README.md", "bindings/python/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, minilm, tmp_path, monkeypatch, capsys):
    for name in ("gpt2-prose", "t5-pronounce", "bert-punctuate"):
        (tmp_path / name).symlink_to(MODELS / name)
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(minilm)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert blocks
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, page, "exec"), namespace)
