"""The file that keeps how a device computes products: with it every open gives the same bits, encoding and generating. Needs --device."""

import numpy as np
import pytest

import make
import tfi

pytestmark = pytest.mark.skipif(not tfi.DEVICE.startswith(b"cuda"), reason="choices are a GPU's: run with --device cuda")


def logits(path, dtype, ids, file):
    with tfi.Model(path, dtype=dtype, gemm_file=str(file).encode()) as model, tfi.Session(model) as session:
        # The second time a shape comes it is captured, and its products are those that the first timed.
        return [session.encode(tfi.Inputs(ids=ids))["token_logits"].copy() for _ in range(3)]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_same_bits(dtype, rng, tmp_path):
    cfg = make.gpt2_config(rng, **make.GPT2_DIALECTS[0])
    make.save(make.build("GPT2LMHeadModel", cfg, rng), tmp_path)
    ids, _ = make.draw_ids(rng, cfg, [1, 7, 33, 128])
    file = tmp_path / "choices"
    first = logits(tmp_path, dtype, ids, file)
    kept = file.read_bytes()
    assert kept.startswith(b"tfinfer gemm choices 1\n") and len(kept.splitlines()) > 2
    for _ in range(3):
        for got in logits(tmp_path, dtype, ids, file):
            assert np.array_equal(got.view(np.int32), first[0].view(np.int32))
        assert file.read_bytes() == kept
