"""The graph of each family as a picture: pictures.py TFINFER writes docs/pictures/*.svg, with Graphviz's dot.

What is drawn is `tfinfer graph --dot` of the models that come with the library, cut to one layer; test_pictures.py looks that the
pictures still show it.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree

import blocks

FOLDER = blocks.ROOT / "docs/pictures"
# Of each model the names of its graphs' pictures.
MODELS = {"bert-punctuate": ["bert"], "gpt2-prose": ["gpt2-encode", "gpt2-step"], "t5-pronounce": ["t5-encode", "t5-step"]}
LAYERS = re.compile(r'("(?:num_hidden_layers|n_layer|num_layers|num_decoder_layers)": )\d+')


def sources(tfinfer):
    """{picture: dot source}."""
    found = {}
    for model, names in MODELS.items():
        full = blocks.ROOT / "examples/models" / model
        with tempfile.TemporaryDirectory() as folder:
            cut = pathlib.Path(folder)
            for file in ("model.safetensors", "generation_config.json"):
                (cut / file).symlink_to(full / file)
            (cut / "config.json").write_text(LAYERS.sub(r"\g<1>1", (full / "config.json").read_text()))
            # fp32 whatever the processor has.
            command = [tfinfer, "graph", "--dot", "--device", "cpu", "--dtype", "fp32", cut]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        graphs = re.split(r"^(?=digraph)", text, flags=re.M)[1:]
        found |= dict(zip(names, graphs, strict=True))
    return found


def of_source(text):
    """({node: lines of its label}, {(from, to, dashed)})."""
    nodes = {name: label.split("\\n") for name, label in re.findall(r'^  (\w+) \[label="([^"]*)"\];', text, re.M)}
    edges = {(a, b, bool(style)) for a, b, style in re.findall(r"^  (\w+) -> (\w+)( \[style=dashed\])?;", text, re.M)}
    return nodes, edges


def of_picture(path):
    nodes, edges = {}, set()
    for group in tree.parse(path).getroot().iterfind(".//{*}g"):
        title = group.findtext("{*}title")
        if group.get("class") == "node":
            nodes[title] = [text.text for text in group.iterfind("{*}text")]
        elif group.get("class") == "edge":
            edges.add((*title.split("->"), group.find("{*}path").get("stroke-dasharray") is not None))
    return nodes, edges


if __name__ == "__main__":
    for name, text in sources(sys.argv[1]).items():
        subprocess.run(["dot", "-Tsvg", "-o", FOLDER / f"{name}.svg"], input=text, text=True, check=True)
