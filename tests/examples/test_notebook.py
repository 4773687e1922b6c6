"""examples/notebook: stripped of outputs, and its cells run, in a process of their own, with small models."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

for module in ("matplotlib", "tfinfer", "torch", "transformers"):
    pytest.importorskip(module)

NOTEBOOK = pathlib.Path(__file__).resolve().parents[2] / "examples/notebook/latency.ipynb"
SMALL = """
DEVICE, THREADS = "cpu", 1
BERT = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
GPT2 = dict(n_embd=64, n_layer=2, n_head=2)
TEXT_TOKENS, NEW_TOKENS, ROUNDS = [3, 17, 60], [1, 9], 2
"""
LOOK = """
assert all(time > 0 for pair in texts + news for time in pair)
for axes, counts, found in ((left, TEXT_TOKENS, texts), (right, NEW_TOKENS, news)):
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
    assert lines == {name: (counts, [pair[i] for pair in found]) for i, name in enumerate(("tfinfer", "transformers"))}
"""


def code():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_has_no_outputs():
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code())


def test_cells_run():
    sources = [SMALL if "parameters" in cell["metadata"].get("tags", []) else "".join(cell["source"]) for cell in code()]
    assert sources.count(SMALL) == 1
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", "\n".join([*sources, LOOK])], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "  17 tokens:" in done.stdout and "   9 new tokens:" in done.stdout
