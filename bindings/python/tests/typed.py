"""Not run: what mypy --strict, which reads it, must say of calls. An ignored error that is none is an error too."""

import asyncio
from contextlib import aclosing

import numpy as np
import tfinfer
import tfinfer.integrations.sentence_transformers as tfinfer_sentence_transformers
import tfinfer.integrations.transformers as tfinfer_transformers
from numpy.typing import NDArray
from tfinfer.records import Classification, Entity, Generated, Token
from typing_extensions import assert_type


async def calls(model: tfinfer.Model) -> None:
    assert_type(model.embed("text"), NDArray[np.float32])
    assert_type(model.classify("text"), Classification)
    assert_type(model.classify(["text"], truncate=True), list[Classification])
    assert_type(model.ner("text", aggregation_strategy="first"), list[Entity])
    assert_type(model.ner(["text"]), list[list[Entity]])
    assert_type(model.generate("text", num_beams=4, eos_token_id=[1, 2]), list[Generated])
    assert_type(model.generate(("text",)), list[list[Generated]])
    assert_type(next(model.stream("text")), Token)
    assert_type(await model.embed_async("text"), NDArray[np.float32])
    assert_type(await model.ner_async("text", stride=3), list[Entity])
    assert_type(await model.generate_async(["text"]), list[list[Generated]])
    task = asyncio.create_task(model.generate_async("text"))
    assert_type(await asyncio.wait_for(task, 1), list[Generated])
    async with aclosing(model.stream_async("text", top_k=3)) as tokens:
        async for token in tokens:
            assert_type(token, Token)
    model.tokenizer([("text", "pair")], padding=True)
    assert_type(model.tokenizer.batch_decode([[1]]), list[str])
    model.generate("text", num_beam=4)  # type: ignore[call-overload]
    model.ner("text", aggregation_strategy="best")  # type: ignore[call-overload]
    tfinfer.Model.open("path", dtype="float32")  # type: ignore[arg-type]


def drop_in(pretrained: list[int], transformer: dict[str, int]) -> None:
    """Stand-ins, as a package without types is Any: what goes in comes out."""
    assert_type(tfinfer_transformers.accelerate(pretrained, fallback="raise", threads=2), list[int])
    assert_type(tfinfer_sentence_transformers.accelerate(transformer, borrow=True), dict[str, int])
    tfinfer_transformers.accelerate(pretrained, fallback="never")  # type: ignore[arg-type]
    tfinfer_transformers.accelerate(pretrained, dtype="float32")  # type: ignore[arg-type]


def sources(weights: dict[str, NDArray[np.float32]]) -> None:
    assert_type(tfinfer.Model.open_source({"config.json": b"{}"}, weights, borrow=True, device="cpu"), tfinfer.Model)
