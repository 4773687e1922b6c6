"""What the benchmarks share: tables, files that are made once, prefixes, and how fast memory and arithmetic let a model be."""

import dataclasses
import shutil


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model of `family` gpt2, t5 or bert; T5 has as many layers in each stack."""

    family: str
    layers: int
    width: int
    heads: int
    ffn: int
    vocab: int
    head_size: int = 64

    @property
    def inner(self):
        """Width of all heads together."""
        return self.heads * self.head_size

    @property
    def layer(self):
        """Weights of a layer of a stack without cross-attention."""
        return 4 * self.width * self.inner + 2 * self.width * self.ffn


@dataclasses.dataclass(frozen=True)
class Speed:
    bytes: float  # a second, from memory
    flops: float  # a second, in products


def pass_seconds(speed, size, weights, rows, cached=0):
    """A pass reads its weights and caches once, `size` bytes a number, and multiplies each weight with each row."""
    return max((weights + cached) * size / speed.bytes, 2 * weights * rows / speed.flops)


def generate_floor(shape, sequences, prompt, new, beams, size, speed):
    """Seconds: the source or prompt in one pass, then a pass a token with the head and the keys and values so far."""
    rows, head, cache = sequences * beams, shape.vocab * shape.width, shape.layers * 2 * shape.inner

    def one(weights, n, cached=0):
        return pass_seconds(speed, size, weights, n, cached)

    layers = shape.layers * shape.layer
    if shape.family == "gpt2":
        total = max(one(layers, sequences * prompt), one(layers + head, sequences))
        return total + sum(one(layers + head, rows, rows * (prompt + i) * cache) for i in range(1, new))
    square = shape.width * shape.inner
    source = layers + shape.layers * 2 * square  # the last: the decoder's keys and values of the source
    step = layers + shape.layers * 2 * square + head
    steps = (one(step, rows, (rows * i + sequences * prompt) * cache) for i in range(new))
    return one(source, sequences * prompt) + sum(steps)


def encode_floor(shape, lengths, size, speed):
    """Seconds: products of every token with the weights and of every pair of tokens of a sequence, or the weights' bytes."""
    weights = shape.layers * shape.layer
    flops = sum(2 * weights * n + shape.layers * 4 * n * n * shape.inner for n in lengths)
    return max(flops / speed.flops, weights * size / speed.bytes)


def line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def table(header, rows):
    return "\n".join(map(line, [header, ["---"] * len(header), *rows]))


def common_prefix(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def make(path, write):
    """Under another name, renamed when whole: a broken run leaves nothing that looks made."""
    if path.exists():
        return
    part = path.with_name("part-" + path.name)
    if part.is_dir():
        shutil.rmtree(part)
    write(part)
    part.rename(path)
