#!/usr/bin/env python3
"""Fails when an #include goes up the layers, or when two files of the tree share a stem that is no op's.

    tests/layers.py [ROOT]

cli > api > generate > models > graph > backend > io > base; the tokenizer leans on base alone and only generate and api lean on
it; cli sees only the public headers. Public headers: base.h and source.h from everywhere, tokenizer.h from the tokenizer and what leans on it,
tfinfer.h from models (for the names of tasks), generate, api and cli, generate.h from the last three.
"""
import re
import sys
from pathlib import Path

LAYERS = ["base", "io", "backend", "graph", "models", "generate", "api"]  # lowest first
# What a layer may include: itself and all layers below it, but for the two that stand aside.
ALLOWED = {layer: set(LAYERS[: i + 1]) for i, layer in enumerate(LAYERS)}
for layer in ("generate", "api"):
    ALLOWED[layer].add("tokenizer")
ALLOWED["tokenizer"] = {"tokenizer", "base"}
ALLOWED["cli"] = {"cli"}
PUBLIC = {layer: {"base.h", "source.h"} for layer in ALLOWED}
PUBLIC["tokenizer"] = {"base.h", "source.h", "tokenizer.h"}
PUBLIC["models"] = {"base.h", "source.h", "tfinfer.h"}
for layer in ("generate", "api", "cli"):
    PUBLIC[layer] = {"base.h", "source.h", "tokenizer.h", "tfinfer.h", "generate.h"}

# An op has the same stem wherever it lives; other stems name one header and one source of one folder.
OP_FOLDERS = {"src/backend/ref", "src/backend/cpu", "src/backend/cuda", "kernels"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
SUFFIXES = {".c", ".h", ".cu", ".cuh", ".hpp", ".inc"}


def sources(root, *folders):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path


def include_errors(root):
    for path in sources(root, "src"):
        relative = path.relative_to(root)
        layer = relative.parts[1]
        if layer not in ALLOWED:
            yield f"{relative}: src/{layer} is no layer that tests/layers.py knows"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, name = match.groups()
            parts = Path(name).parts
            where = f"{relative}:{number}: includes {name}"
            if parts[0] == "tfinfer":
                if parts[-1] not in PUBLIC[layer]:
                    yield f"{where}: {layer} may include only {', '.join(sorted(PUBLIC[layer]))} of the public headers"
            elif ".." in parts:
                yield f"{where}: name it from src/"
            elif parts[0] == "kernels":  # beside src/, and the CUDA backend's
                if not (root / name).exists() or relative.parts[:3] != ("src", "backend", "cuda"):
                    yield f"{where}: kernels are the CUDA backend's alone"
            elif quote == '"' and not (path.parent / name).exists():  # a header of the same folder needs no more words
                if not (root / "src" / name).exists():
                    yield f"{where}: no such file below src/; internal headers are named from there"
                elif parts[0] not in ALLOWED[layer]:
                    yield f"{where}: {layer} may not include {parts[0]}"


def stem_errors(root):
    homes = {}
    for path in sources(root, "src", "kernels"):
        homes.setdefault(path.stem, set()).add(str(path.parent.relative_to(root)))
    for stem, folders in sorted(homes.items()):
        if len(folders) > 1 and not folders <= OP_FOLDERS:
            yield f"{stem}: the stem is used in {', '.join(sorted(folders))}; stems are unique but for an op's"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    errors = [*include_errors(root), *stem_errors(root)]
    for error in errors:
        print(error)
    count = sum(1 for _ in sources(root, "src"))
    print(f"layers: {count} files, {len(errors)} errors")
    sys.exit(1 if errors else 0)


main()
