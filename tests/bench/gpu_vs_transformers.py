"""GPT-2, T5 and BERT on one GPU: this library beside transformers, in one run, as Markdown with targets and floors.

    TFINFER_LIBRARY=build/release/libtfinfer.so python tests/bench/gpu_vs_transformers.py --cache FOLDER [--rounds 5]
        [--compile] [--only "GPT-2 XL" ...] [--ours-only] [--device cpu --tiny]

Token ids in host memory in, ids (or BERT's pooled vectors) in host memory out. Random weights, made once on the device and
kept in --cache (14 GB); random prompts; greedy or four beams, the end token barred so that all write as many. The engines'
answers are compared before anything is timed, then they take turns; a figure is the median. The peer is transformers as it
comes (eager); with --compile, which takes minutes, also with a static cache and torch.compile. "Open to first token" is a
process of its own: from the files, which the page cache holds, to one new token, the GPU's context included, whose making
is also given by itself; the peer's figure, in this process, has neither context nor imports in it.

A floor is what the device's memory lets through in the bytes that each pass must read (weights, keys and values), or what
its tensor cores multiply in the pass's products, whichever is longer, summed over the passes: figures.py has the formulas,
SPEED the device's figures. --ours-only prints where our time goes, by kernel. --device cpu --tiny runs without a GPU.
"""

import argparse
import collections
import ctypes
import dataclasses
import datetime
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import time
import traceback

import numpy as np

from figures import Shape, Speed, common_prefix, encode_floor, generate_floor, line, make, table

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPEED = Speed(bytes=4.6e12, flops=790e12)  # of an H200: its memory's, and what its tensor cores do in large dense fp16 products

SHAPES = {
    "GPT-2 124M": Shape("gpt2", 12, 768, 12, 3072, 50257),
    "GPT-2 medium": Shape("gpt2", 24, 1024, 16, 4096, 50257),
    "GPT-2 XL": Shape("gpt2", 48, 1600, 25, 6400, 50257),
    "T5-base": Shape("t5", 12, 768, 12, 3072, 32128),
    "T5-3B": Shape("t5", 24, 1024, 32, 16384, 32128, head_size=128),
    "BERT-base": Shape("bert", 12, 768, 12, 3072, 30522),
    "BERT-large": Shape("bert", 24, 1024, 16, 4096, 30522),
}
DTYPES = collections.defaultdict(lambda: "fp16", {"T5-3B": "bf16"})
TINY = {family: Shape(family, 2, 64, 2, 96, 300, head_size=32) for family in ("gpt2", "t5", "bert")}
FIRST_TOKEN, FIRST_TOKEN_MS = "GPT-2 XL", 1500
TURN = 0.05  # seconds that an engine runs on its own before it is another's turn
NEAR = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.3}  # deviations of the peer's logits: our choice may be so far under its best
NEAR_VECTORS = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}  # relative L2


def spread(count, longest, mean):
    """Lengths of `count` texts, evenly from short to long, one of them the longest."""
    lengths = np.linspace(8, 2 * mean * longest - 8, count - 1).astype(int).tolist()
    return np.random.default_rng(3).permutation([*lengths, longest]).tolist()


@dataclasses.dataclass
class Case:
    model: str
    what: str
    lengths: list  # tokens in, of each sequence
    new: int = 0  # tokens out; 0: BERT
    beams: int = 1
    target: float = None  # milliseconds
    of: tuple = None  # instead: (another case of the model, so many times as fast)


CASES = [
    Case("GPT-2 124M", "40 + 99", [40], 99, target=19),
    Case("GPT-2 124M", "batch 64, 40 + 99", [40] * 64, 99, target=35),
    Case("GPT-2 medium", "40 + 99", [40], 99, target=40),
    Case("GPT-2 XL", "40 + 99", [40], 99, target=110),
    Case("T5-base", "40 in, 99 out", [40], 99, target=25),
    Case("T5-base", "40 in, 99 out, 4 beams", [40], 99, 4, target=45),
    Case("T5-3B", "16 in, 32 out", [16], 32, target=32),
    Case("BERT-base", "1 x 512", [512], target=0.5),
    Case("BERT-base", "1 x 40", [40], target=0.3),
    Case("BERT-base", "128 x 384", [384] * 128, target=18),
    Case("BERT-base", "128 texts, mean 45 % of 384", spread(128, 384, 0.45), of=("128 x 384", 1.9)),
    Case("BERT-large", "128 x 384", [384] * 128, target=58),
]


def shrink(case):
    """For a run without a GPU: the same kinds of work, small, and no targets."""
    lengths = [max(2, n // 32) for n in case.lengths[:3]]
    return dataclasses.replace(case, lengths=lengths, new=min(case.new, 5), target=None)


def prompts_of(case, vocab):
    rng = np.random.default_rng(7)
    return [rng.integers(3, vocab, n).tolist() for n in case.lengths]


# ---- checkpoints ----


def configuration(shape):
    import transformers

    if shape.family == "gpt2":
        dims = dict(n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads, n_inner=shape.ffn, vocab_size=shape.vocab)
        ends = dict(bos_token_id=shape.vocab - 1, eos_token_id=shape.vocab - 1)
        return transformers.GPT2LMHeadModel, transformers.GPT2Config(**dims, **ends)
    if shape.family == "t5":
        dims = dict(d_model=shape.width, d_ff=shape.ffn, num_layers=shape.layers, num_heads=shape.heads, d_kv=shape.head_size)
        ends = dict(vocab_size=shape.vocab, decoder_start_token_id=0)
        return transformers.T5ForConditionalGeneration, transformers.T5Config(**dims, **ends)
    dims = dict(hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads)
    return transformers.BertModel, transformers.BertConfig(vocab_size=shape.vocab, intermediate_size=shape.ffn, **dims)


def save_checkpoint(shape, dtype, device, path):
    """The word table is a tenth as large as transformers draws it: else the last token's own row outweighs all layers, every
    engine repeats it and a comparison shows nothing."""
    import torch

    kind, cfg = configuration(shape)
    torch.manual_seed(1)
    with torch.device(device):
        model = kind(cfg)
    if shape.family != "bert":
        model.get_input_embeddings().weight.data.mul_(0.1)
    model.to(torch_dtype(dtype)).save_pretrained(path)


def torch_dtype(name):
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


# ---- engines: run() -> ids of the best sequence of each prompt, or BERT's pooled vectors ----


def library_folder():
    """Where torch's packages have the matrix library; a process without torch finds it there."""
    found = glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "lib", "libcublasLt.so.1?"))
    return dict(library_folder=os.path.dirname(found[0]).encode()) if found else {}


class Ours:
    def __init__(self, path, dtype, device):
        import tfi
        import tfi_generate

        self.tfi, self.generate, self.options_of = tfi, tfi_generate.Generate, tfi_generate.GenerateOptions
        self.model = tfi.Model(path, dtype=dtype, device=device.encode(), **library_folder())

    def prepare(self, case, prompts):
        """A session as large as the case; what does not change from run to run."""
        rows = len(prompts) * case.beams
        room = dict(kv_tokens=rows * (max(case.lengths) + case.new + 64)) if case.new else {}
        self.session = self.tfi.Session(
            self.model, max_step_tokens=max(2048, sum(case.lengths)), max_sequences=max(64, rows), **room
        )
        lengths = dict(max_new_tokens=case.new, min_new_tokens=case.new)
        self.options = self.options_of(**lengths, num_beams=case.beams, do_sample=0)
        inputs = self.tfi.Inputs
        self.inputs = [inputs(ids=[ids]) for ids in prompts] if case.new else inputs(ids=prompts)
        if not case.new:
            self.pooled = np.empty((len(prompts), self.model.info.pooled_width), np.float32)
            self.output = self.tfi.EncodeOutput(pooled=self.tfi.pointer(self.pooled, self.tfi.FLOATS))

    def run(self):
        if isinstance(self.inputs, self.tfi.Inputs):
            arguments = self.session.handle, ctypes.byref(self.inputs.c), ctypes.byref(self.output)
            self.tfi.check(self.tfi.lib.tf_encode(*arguments))
            return self.pooled
        requests = []
        try:
            for one in self.inputs:
                requests.append(self.generate(self.session, one, self.options))
            return [request.wait().new_ids() for request in requests]
        finally:
            for request in requests:
                request.close()

    def finish(self):
        self.session.close()

    def close(self):
        self.model.close()


class Transformers:
    def __init__(self, shape, path, dtype, device):
        import torch

        self.torch, self.shape, self.device = torch, shape, device
        self.model = configuration(shape)[0].from_pretrained(path, dtype=torch_dtype(dtype)).to(device).eval()
        self.is_compiled = False

    def prepare(self, case, prompts):
        """Padded behind, with a mask; prompts that generate are all as long."""
        self.case, self.ids = case, np.zeros((len(prompts), max(case.lengths)), np.int64)
        self.mask = np.zeros_like(self.ids)
        for i, row in enumerate(prompts):
            self.ids[i, : len(row)], self.mask[i, : len(row)] = row, 1
        self.forward = self.torch.compile(self.model) if self.is_compiled and not case.new else self.model

    def run(self):
        ids, mask = (self.torch.tensor(a).to(self.device) for a in (self.ids, self.mask))
        with self.torch.inference_mode():
            if not self.case.new:
                return self.forward(input_ids=ids, attention_mask=mask).pooler_output.float().cpu().numpy()
            lengths = dict(max_new_tokens=self.case.new, min_new_tokens=self.case.new, num_beams=self.case.beams)
            cache = dict(cache_implementation="static") if self.is_compiled else {}
            found = self.model.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=0, **lengths, **cache)
        return found[:, -self.case.new :].tolist()

    def logits(self, answer):
        """That each of the answer's ids was chosen from, [sequences, new, vocabulary], the end barred."""
        ids, new = (self.torch.tensor(a).to(self.device) for a in (self.ids, np.array(answer)))
        with self.torch.inference_mode():
            if self.shape.family == "t5":
                starts = self.torch.zeros_like(new[:, :1])
                out = self.model(input_ids=ids, decoder_input_ids=self.torch.cat([starts, new[:, :-1]], dim=1)).logits
            else:
                out = self.model(input_ids=self.torch.cat([ids, new[:, :-1]], dim=1)).logits[:, ids.shape[1] - 1 :]
            out = out.float()
            out[..., self.model.config.eos_token_id] = -self.torch.inf
            return out

    def worse(self, answer):
        """By how many deviations of the logits each id of a greedy answer lies under the best, at the most; the mean of it."""
        out = self.logits(answer)
        gaps = out.max(dim=-1).values - self.chosen(out, answer)
        gaps = gaps / self.torch.where(self.torch.isfinite(out), out, 0).std(dim=-1)
        return float(gaps.max()), float(gaps.mean())

    def chosen(self, values, answer):
        return values.gather(2, self.torch.tensor(answer)[..., None].to(self.device))[..., 0]

    def score(self, answer):
        """Mean log-probability of a sequence's ids, in deviations of the logits."""
        out = self.logits(answer)
        deviation = self.torch.where(self.torch.isfinite(out), out, 0).std(dim=-1)
        return float((self.chosen(out.log_softmax(dim=-1), answer) / deviation).mean())

    def finish(self):
        self.torch._dynamo.reset()

    def close(self):
        del self.model
        if self.torch.cuda.is_available():
            self.torch.cuda.empty_cache()


# ---- one case ----


def compare(case, dtype, ours, theirs, peer):
    """Ends the case if the answers are not those of one model; says how far they agree."""
    if not case.new:
        error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        require(error <= NEAR_VECTORS[dtype], f"relative L2 {error:.2g} to the peer's")
        return f"relative L2 {error:.1g}"
    require([len(row) for row in ours] == [case.new] * len(case.lengths), f"tokens written: {[len(row) for row in ours]}")
    agreed = statistics.mean(common_prefix(*rows) for rows in zip(ours, theirs))
    if case.beams == 1:
        most, mean = peer.worse(ours)
        text = f"{agreed:.0f} ids agree; under the peer's best by {most:.2g} deviations at the most, {mean:.1g} in the mean"
    else:
        most = peer.score(theirs) - peer.score(ours)
        text = f"{agreed:.0f} ids agree; the sequence is worse by {most:.2g} deviations a token"
    require(most <= NEAR[dtype], text)
    return text


def require(condition, text):
    if not condition:
        raise AssertionError("the answers differ: " + text)


def clock(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(engines, rounds, seconds):
    """{name: median ms}: each has a turn a round, until all rounds are done or the seconds are over. A turn is runs one behind the
    other for TURN seconds, one at the least: short ones are not measured by what the other left in the caches."""
    times, begin = collections.defaultdict(list), time.perf_counter()
    for done in range(rounds):
        if done and time.perf_counter() > begin + seconds:
            break
        for name, engine in engines.items():
            end = time.perf_counter() + TURN
            times[name].append(clock(engine.run))
            while time.perf_counter() < end:
                times[name].append(clock(engine.run))
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def measure(case, dtype, vocab, engines, a):
    """{name: median ms} after a comparison; an engine that cannot do the case is left out."""
    prompts, answers, able = prompts_of(case, vocab), {}, {}
    for name, engine in engines.items():
        try:
            engine.prepare(case, prompts)
            for _ in range(3 if name == "ours" else 2):
                answers[name] = engine.run()
            able[name] = engine
        except Exception as e:
            if name in ("ours", "transformers"):
                raise
            log(f"{case.model}, {case.what}: {name} left out: {e!r:.200}")
    if "transformers" in able:
        for name in able.keys() - {"transformers"}:
            text = compare(case, dtype, answers[name], answers["transformers"], able["transformers"])
            log(f"{case.model}, {case.what}: {name}: {text}")
    times = take_turns(able, a.rounds, a.seconds)
    if a.ours_only:
        profile(f"{case.model}, {case.what}: {times['ours']:.3f} ms", able["ours"].run)
    for engine in able.values():
        engine.finish()
    return times


def profile(title, run, most=14):
    """Where the time of one run goes, by kernel."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    log(f"\n{title}")
    if not torch.cuda.is_available():
        return log("  no GPU to look at")
    with record(activities=[ProfilerActivity.CUDA]) as recorded:
        run()
        torch.cuda.synchronize()
    events = [e for e in recorded.events() if str(e.device_type).endswith("CUDA")]
    kernels = collections.defaultdict(list)
    for e in events:
        kernels[e.name[:90]].append(e.time_range.elapsed_us())
    if not events:
        return log("  nothing ran on the GPU")
    busy = sum(map(sum, kernels.values())) / 1e3
    span = (max(e.time_range.end for e in events) - min(e.time_range.start for e in events)) / 1e3
    log(f"  busy {busy:.3f} of {span:.3f} ms, {len(events)} launches and copies")
    for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:most]:
        log(f"  {sum(times) / 1e3:9.3f} ms {len(times):6d} x {statistics.mean(times):8.2f} us  {name}")


# ---- open to first token, in a process of its own ----


def first_token(path, dtype, device):
    """Prints milliseconds as JSON: the context's and all."""
    import tfi  # noqa: F401, the library is loaded before the clock starts

    start = time.perf_counter()
    if device != "cpu":
        driver, context, ordinal = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_int()
        for code in (
            driver.cuInit(0),
            driver.cuDeviceGet(ctypes.byref(ordinal), int((device + ":0").split(":")[1])),
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal),
        ):
            assert code == 0, f"CUDA driver error {code}"
    made = time.perf_counter()
    engine = Ours(path, dtype, device)
    engine.prepare(Case("", "", [40], 1), [list(range(3, 43))])
    opened = time.perf_counter()
    engine.run()
    end = time.perf_counter()
    print(json.dumps(dict(context=1e3 * (made - start), open=1e3 * (opened - made), all=1e3 * (end - start))))


def first_tokens(path, dtype, device, rounds=3):
    """The run of median length of several."""
    command = [sys.executable, __file__, "--first-token", path, dtype, device]
    runs = []
    for _ in range(rounds):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return sorted(runs, key=lambda run: run["all"])[rounds // 2]


def their_first_token(shape, path, dtype, device):
    """In this process, which has its libraries and context."""
    case = Case("", "", [40], 1)
    start = time.perf_counter()
    engine = Transformers(shape, path, dtype, device)
    engine.prepare(case, [list(range(3, 43))])
    engine.run()
    return engine, 1e3 * (time.perf_counter() - start)


# ---- the report ----


def log(text):
    print(text, file=sys.stderr, flush=True)


def floor_ms(case, shape, dtype):
    size = 4 if dtype == "fp32" else 2
    if not case.new:
        return 1e3 * encode_floor(shape, case.lengths, size, SPEED)
    return 1e3 * generate_floor(shape, len(case.lengths), case.lengths[0], case.new, case.beams, size, SPEED)


def number(ms):
    return "-" if ms is None else f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def report(title, times, target, floor, names):
    """A row of the table, at once: a run that is cut short has shown what it found."""
    mine, peer = times.get("ours"), times.get("transformers")
    verdict = "" if target is None or mine is None else "met" if mine <= target else "MISSED"
    share = f"{floor / mine:.0%}" if floor and mine else ""
    ratio = f"{peer / mine:.1f}x" if peer and mine else "-"
    cells = [title, *(number(times.get(n)) for n in names), ratio, number(target), verdict, number(floor), share]
    print(line(cells), flush=True)


def machine(device):
    import tfi
    import torch
    import transformers

    gpu = ""
    if device != "cpu":
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(ask, capture_output=True, text=True).stdout.split("\n")[0]
        except OSError:
            driver = "?"
        gpu = f", {torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}"
    ours = f"libtfinfer {tfi.lib.tf_version().decode()}"
    return f"{datetime.date.today()}{gpu}; {ours}, torch {torch.__version__}, transformers {transformers.__version__}"


def run_model(model, cases, a):
    """Reports the cases of one model; those that fail are named and left out."""
    shape = TINY[SHAPES[model].family] if a.tiny else SHAPES[model]
    dtype = "fp32" if a.device == "cpu" else DTYPES[model]
    path = pathlib.Path(a.cache) / f"{model.replace(' ', '-').lower()}-{dtype}{'-tiny' * a.tiny}"
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path, lambda part: save_checkpoint(shape, dtype, a.device, part))
    done, engines = {}, {}
    if model == FIRST_TOKEN and not a.ours_only:
        times = first_tokens(path, dtype, a.device)
        engines["transformers"], theirs = their_first_token(shape, path, dtype, a.device)
        title = f"{model} {dtype}, open to first token, of it the context {times['context']:.0f}"
        report(title, {"ours": times["all"], "transformers": theirs}, FIRST_TOKEN_MS, None, a.names)
    engines = {"ours": Ours(path, dtype, a.device), **engines}
    if not a.ours_only:
        engines.setdefault("transformers", Transformers(shape, path, dtype, a.device))
    if a.compile:
        engines["compiled"] = Transformers(shape, path, dtype, a.device)
        engines["compiled"].is_compiled = True
    for case in cases:
        title = f"{model} {dtype}, {case.what}"
        try:
            done[case.what] = times = measure(case, dtype, shape.vocab, engines, a)
        except Exception as e:
            a.failed.append(title)
            log(f"{title}: {e}\n{traceback.format_exc()[-1500:]}")
            continue
        target = case.target
        if case.of and case.of[0] in done:
            target = done[case.of[0]]["ours"] / case.of[1]
            title += f", {case.of[1]}x {case.of[0]} wanted, {done[case.of[0]]['ours'] / times['ours']:.2f}x"
        report(title, times, target, floor_ms(case, shape, dtype), a.names)
    for engine in engines.values():
        engine.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--cache", required=True, help="folder that keeps the models")
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=6, help="that the turns of a case take at the most")
    arguments.add_argument("--only", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="MODEL")
    arguments.add_argument("--compile", action="store_true", help="the peer with torch.compile and a static cache too")
    arguments.add_argument("--ours-only", action="store_true", help="where our time goes")
    arguments.add_argument("--tiny", action="store_true", help="models of a few weights: does it run?")
    a = arguments.parse_args()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    a.names = ["ours", *(["transformers"] * (not a.ours_only)), *(["compiled"] * a.compile)]
    a.failed, start = [], time.time()
    print(f"{machine(a.device)}\n\nMilliseconds (median):\n")
    print(table(["", *a.names, "ratio", "target", "", "floor", "share of the floor's speed"], []), flush=True)
    for model in a.only:
        try:
            run_model(model, [shrink(c) if a.tiny else c for c in CASES if c.model == model], a)
        except Exception as e:
            a.failed.append(model)
            log(f"{model}: {e}\n{traceback.format_exc()[-1500:]}")
        log(f"{model}: done after {time.time() - start:.0f} s")
    print(f"\n{time.time() - start:.0f} s in all" + (f"; FAILED: {', '.join(a.failed)}" if a.failed else ""))
    return len(a.failed) > 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-token"]:
        first_token(*sys.argv[2:])
    else:
        sys.exit(main())
