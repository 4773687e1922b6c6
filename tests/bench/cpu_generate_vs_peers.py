"""GPT-2 124M and T5-base generate on the CPU: this library beside transformers, CTranslate2 and llama.cpp, in one run.

    TFINFER_LIBRARY=build/release/libtfinfer.so python tests/bench/cpu_generate_vs_peers.py --cache FOLDER [--rounds 5]
        [--llama-python PYTHON --llama-source UNPACKED_SDIST] [--models gpt2 t5] [--cases "batch 1" ...] [--only ...]

40 prompt tokens, 99 new ones, greedy or four beams, the end token barred so that all write 99; the answer is Markdown. Each
engine lives in a process of its own and runs only when asked; rounds go over all of them in turn, so that a slow minute of the
machine hurts all alike. A figure is the median of the rounds. All engines have the same seeded random weights and prompts, made
once and kept in --cache (5 GB); what they wrote is compared before anything is timed. "First token" is opening the files, which
the page cache holds, and generating one token, the process and its libraries being loaded. README.md beside this file says how
to make llama.cpp's environment; without --llama-python it is left out.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from figures import Shape, Speed, common_prefix, generate_floor, make, table

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROMPT, NEW = 40, 99
LAYERS, WIDTH, FFN = 12, 768, 3072  # of both models, and of each of T5's stacks
VOCAB = {"gpt2": 50257, "t5": 32128}
TITLE = {"gpt2": "GPT-2 124M", "t5": "T5-base"}
END = {"gpt2": 50256, "t5": 1}
CASES = {  # model: {case: (sequences, beams)}
    "gpt2": {"batch 1": (1, 1), "batch 8": (8, 1)},
    "t5": {"batch 1": (1, 1), "batch 8": (8, 1), "4 beams": (1, 4)},
}
WANTED = [  # (model, case, ours, peer, at least this many times as fast)
    ("gpt2", "batch 1", "ours fp32", "llama.cpp f32", 1.0),
    ("gpt2", "batch 1", "ours bf16", "llama.cpp bf16", 1.0),
    ("gpt2", "batch 1", "ours fp32", "floor fp32", 0.85),
    ("gpt2", "batch 1", "ours bf16", "floor bf16", 0.85),
    ("gpt2", "batch 8", "ours fp32", "transformers fp32", 3.0),
    ("t5", "batch 1", "ours fp32", "transformers fp32", 2.3),
    ("t5", "batch 1", "ours bf16", "transformers bf16", 2.1),
    ("t5", "batch 8", "ours fp32", "transformers fp32", 2.7),
    ("t5", "4 beams", "ours fp32", "transformers fp32", 3.0),
    ("t5", "batch 1", "ours fp32", "ctranslate2 fp32", 1.0),
    ("t5", "batch 8", "ours fp32", "ctranslate2 fp32", 1.0),
    ("t5", "4 beams", "ours fp32", "ctranslate2 fp32", 1.0),
]


def prompts_of(model, sequences):
    return np.random.default_rng(7).integers(100, 32000, (8, PROMPT))[:sequences].tolist()


# Each engine: open() and close() a model's files, run(prompts, new, beams) -> the best sequence's new ids for each prompt.


class Ours:
    def __init__(self, model, dtype, folder, threads):
        import tfi
        import tfi_generate

        self.tfi, self.generate_together = tfi, tfi_generate.generate_together
        self.path, self.options = folder / dtype, dict(dtype=dtype, threads=threads)
        self.version = f"libtfinfer {tfi.lib.tf_version().decode()}"

    def open(self):
        self.model = self.tfi.Model(self.path, **self.options)
        self.session = self.tfi.Session(self.model)

    def run(self, prompts, new, beams):
        settings = dict(max_new_tokens=new, min_new_tokens=new, num_beams=beams, do_sample=0)
        found = self.generate_together(self.session, [(prompt, settings) for prompt in prompts])
        return [results[0].ids for results in found]

    def close(self):
        self.session.close()
        self.model.close()


class Transformers:
    def __init__(self, model, dtype, folder, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        self.torch, self.path = torch, folder / dtype
        self.kind = transformers.GPT2LMHeadModel if model == "gpt2" else transformers.T5ForConditionalGeneration
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.skip = PROMPT if model == "gpt2" else 1  # the answer repeats the prompt or the decoder's start token
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def open(self):
        self.model = self.kind.from_pretrained(self.path, dtype=self.dtype).eval()

    def run(self, prompts, new, beams):
        ids = self.torch.tensor(prompts)
        settings = dict(max_new_tokens=new, min_new_tokens=new, num_beams=beams, do_sample=False, pad_token_id=0)
        with self.torch.inference_mode():
            found = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), **settings)
        return found[:, self.skip :].tolist()

    def close(self):
        del self.model


class CTranslate2:
    def __init__(self, model, dtype, folder, threads):
        import ctranslate2

        self.path, self.gpt = str(folder / f"ct2-{dtype}"), model == "gpt2"
        self.kind = ctranslate2.Generator if self.gpt else ctranslate2.Translator
        self.options = dict(
            device="cpu",
            compute_type={"fp32": "float32", "int8": "int8"}[dtype],
            intra_threads=threads,
            inter_threads=1,
        )
        self.version = f"ctranslate2 {ctranslate2.__version__}"

    def open(self):
        self.model = self.kind(self.path, **self.options)

    def run(self, prompts, new, beams):
        words = [[f"w{i}" for i in row] for row in prompts]
        if self.gpt:
            found = self.model.generate_batch(
                words, beam_size=beams, min_length=new, max_length=new, include_prompt_in_result=False
            )
            return [one.sequences_ids[0] for one in found]
        found = self.model.translate_batch(words, beam_size=beams, min_decoding_length=new, max_decoding_length=new)
        return [[int(word[1:]) for word in one.hypotheses[0]] for one in found]

    def close(self):
        del self.model


class LlamaCpp:
    """All sequences advance in one llama_decode; the best id is numpy's argmax, which costs less than its sampler chain."""

    def __init__(self, model, dtype, folder, threads):
        import llama_cpp

        self.api, self.path = llama_cpp, folder / f"{dtype}.gguf"
        self.threads, self.vocab, self.end = threads, VOCAB[model], END[model]
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, None)
        llama_cpp.llama_backend_init()
        self.version = f"llama.cpp as in llama-cpp-python {llama_cpp.__version__}"

    def open(self):
        self.model = self.api.llama_model_load_from_file(str(self.path).encode(), self.api.llama_model_default_params())
        if not self.model:
            raise OSError(f"llama.cpp cannot load {self.path}")
        self.contexts = {}

    def context(self, sequences):
        if sequences not in self.contexts:
            options = self.api.llama_context_default_params()
            options.n_ctx, options.n_seq_max, options.n_batch = 256 * sequences, sequences, 512
            options.n_threads = options.n_threads_batch = self.threads
            self.contexts[sequences] = self.api.llama_init_from_model(self.model, options)
        return self.contexts[sequences]

    def step(self, context, batch, rows, position):
        """The next id of each sequence after its tokens in `rows`, the first of them at `position`."""
        batch.n_tokens = n = 0
        for sequence, tokens in enumerate(rows):
            for i, token in enumerate(tokens):
                batch.token[n], batch.pos[n] = token, position + i
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
                batch.logits[n] = i == len(tokens) - 1
                n += 1
        batch.n_tokens = n
        if self.api.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        found, last = [], -1
        for tokens in rows:
            last += len(tokens)
            logits = np.ctypeslib.as_array(self.api.llama_get_logits_ith(context, last), (self.vocab,))
            logits[self.end] = -np.inf
            found.append(int(logits.argmax()))
        return found

    def run(self, prompts, new, beams):
        context, batch = self.context(len(prompts)), self.api.llama_batch_init(512, 0, 1)
        self.api.llama_memory_clear(self.api.llama_get_memory(context), False)
        steps = [self.step(context, batch, prompts, 0)]
        while len(steps) < new:
            steps.append(self.step(context, batch, [[token] for token in steps[-1]], PROMPT + len(steps) - 1))
        self.api.llama_batch_free(batch)
        return [list(row) for row in zip(*steps)]

    def close(self):
        for context in self.contexts.values():
            self.api.llama_free(context)
        self.api.llama_model_free(self.model)


ENGINES = {  # name: (class, dtype, models)
    "ours fp32": (Ours, "fp32", ("gpt2", "t5")),
    "ours bf16": (Ours, "bf16", ("gpt2", "t5")),
    "transformers fp32": (Transformers, "fp32", ("gpt2", "t5")),
    "transformers bf16": (Transformers, "bf16", ("gpt2", "t5")),
    "ctranslate2 fp32": (CTranslate2, "fp32", ("gpt2", "t5")),
    "ctranslate2 int8": (CTranslate2, "int8", ("gpt2", "t5")),
    "llama.cpp f32": (LlamaCpp, "f32", ("gpt2",)),
    "llama.cpp bf16": (LlamaCpp, "bf16", ("gpt2",)),
}


# The models' files.


def make_files(model, folder, names, llama_source):
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in ("fp32", "bf16"):
        make(folder / dtype, lambda path: save_checkpoint(model, dtype, path))
    for name in names:
        kind, dtype, models = ENGINES[name]
        if model in models and kind is CTranslate2:
            make(folder / f"ct2-{dtype}", lambda path: convert_ctranslate2(model, folder / "fp32", dtype, path))
        if model in models and kind is LlamaCpp:
            make(folder / f"{dtype}.gguf", lambda path: convert_gguf(folder / "fp32", dtype, path, llama_source))


def save_checkpoint(model, dtype, path):
    """Random weights as transformers draws them, but the layers' matrices three times as large and T5's embedding a tenth: as
    drawn, the last token's embedding outweighs all layers, every engine repeats it and a comparison shows nothing."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(1)
    if model == "gpt2":
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_ctx=1024))  # llama.cpp's converter asks for n_ctx
    else:
        cfg = transformers.T5Config(
            d_model=WIDTH,
            d_ff=FFN,
            num_layers=LAYERS,
            num_heads=12,
            vocab_size=VOCAB["t5"],
            decoder_start_token_id=0,
        )
        made = transformers.T5ForConditionalGeneration(cfg)
        made.shared.weight.data.mul_(0.1)
    for name, weight in made.named_parameters():
        if weight.ndim == 2 and (".h." in name or ".block." in name):
            weight.data.mul_(3)
    made.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).save_pretrained(path)


def beside_tokenizer(checkpoint, folder):
    """The checkpoint's files under another folder, where a converter may find a tokenizer beside them."""
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    return folder


def convert_ctranslate2(model, checkpoint, dtype, path):
    """Its converter wants a tokenizer: token i is the word "wi"."""
    import ctranslate2
    import tokenizers
    import transformers

    vocab = {f"w{i}": i for i in range(VOCAB[model])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="w2"))
    special = dict(bos_token=f"w{END[model]}", eos_token=f"w{END[model]}", unk_token="w2", pad_token="w0")
    with tempfile.TemporaryDirectory() as folder:
        source = beside_tokenizer(checkpoint, pathlib.Path(folder))
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(source)
        converter = ctranslate2.converters.TransformersConverter(str(source))
        converter.convert(str(path), quantization={"fp32": "float32", "int8": "int8"}[dtype])


def convert_gguf(checkpoint, dtype, path, llama_source):
    """llama.cpp's converter knows GPT-2 by its real tokenizer, which the tests' data has."""
    data = pathlib.Path(os.environ.get("TFINFER_TEST_DATA", HERE.parents[2] / "shared/data")) / "tokenizers/gpt2"
    with tempfile.TemporaryDirectory() as folder:
        source = beside_tokenizer(checkpoint, pathlib.Path(folder))
        (source / "vocab.json").symlink_to(data / "encoder.json")
        (source / "merges.txt").symlink_to(data / "vocab.bpe")
        script = pathlib.Path(llama_source) / "vendor/llama.cpp/convert_hf_to_gguf.py"
        command = [sys.executable, script, source, "--outtype", dtype, "--outfile", path]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"llama.cpp's converter failed:\n{done.stdout}")


# The engines' processes answer JSON lines, because llama.cpp's lives under an interpreter of its own.


def serve(name, model, folder, threads):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand between the answers

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    kind, dtype, _ = ENGINES[name]
    try:
        engine = kind(model, dtype, pathlib.Path(folder), int(threads))
        engine.open()
        answer(version=engine.version)
    except Exception as e:  # the parent goes on without this engine
        return answer(error=f"{type(e).__name__}: {e}")
    for line in sys.stdin:
        order = json.loads(line)
        sequences, beams = CASES[model].get(order["case"], (1, 1))
        prompts, new = prompts_of(model, sequences), NEW
        if order["case"] == "first token":
            engine.close()
            new = 1
        start = time.perf_counter()
        if order["case"] == "first token":
            engine.open()
        try:
            ids = engine.run(prompts, new, beams)
            answer(seconds=time.perf_counter() - start, ids=ids, peak=peak_resident())
        except Exception as e:
            return answer(error=f"{type(e).__name__}: {e}")


def peak_resident():
    """Of this process, in bytes."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Process:
    def __init__(self, python, name, model, folder, threads):
        command = [python, __file__, "--serve", name, model, folder, threads]
        self.name = name
        self.child = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.version = self.answer()["version"]

    def answer(self):
        line = self.child.stdout.readline()
        values = json.loads(line) if line else dict(error=f"its process ended, status {self.child.wait()}")
        if "error" in values:
            self.close()
            raise RuntimeError(values["error"])
        return values

    def ask(self, case):
        print(json.dumps(dict(case=case)), file=self.child.stdin, flush=True)
        return self.answer()

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def start_engines(names, model, folder, threads, llama_python):
    """Those that run here, each asked for every case once: ({name: process}, {(name, case): first answer})."""
    running, answers = {}, {}
    for name in names:
        kind, _, models = ENGINES[name]
        if model not in models:
            continue
        try:
            process = Process(llama_python if kind is LlamaCpp else sys.executable, name, model, folder, threads)
            answers |= {(name, case): process.ask(case) for case in CASES[model]}
            running[name] = process
        except RuntimeError as e:
            print(f"{TITLE[model]}: {name} does not run here: {e}", file=sys.stderr)
    return running, answers


def compare(model, running, answers):
    """Lengths are exact. fp32 engines write the same ids until two choices lie within rounding of each other, from where on a
    sequence goes its own way (soonest in llama.cpp, whose keys, values and GELU table are fp16): half the sequences must agree
    for 4 tokens, which no other computation does by chance. bf16 and int8 need not."""
    first = next((n for n in ("transformers fp32", *running) if n in running), None)
    for (name, case), answer in answers.items():
        if [len(row) for row in answer["ids"]] != [NEW] * CASES[model][case][0]:
            raise SystemExit(f"{name} wrote {[len(row) for row in answer['ids']]} tokens at {TITLE[model]}, {case}")
        agreed = [common_prefix(*rows) for rows in zip(answer["ids"], answers[first, case]["ids"])]
        print(f"{TITLE[model]}, {case}: {name} goes with {first} for {agreed} of {NEW} tokens", file=sys.stderr)
        if name.endswith("32") and statistics.median(agreed) < 4:
            raise SystemExit(f"{name} computes something else at {TITLE[model]}, {case}")


def measure(model, running, rounds):
    """{(name, case): median ms}; the engines take turns, with a pause so that the last one's threads have gone to sleep."""
    times = {}
    for _ in range(rounds):
        for case in (*CASES[model], "first token"):
            for name, process in running.items():
                time.sleep(0.05)
                times.setdefault((name, case), []).append(process.ask(case)["seconds"])
    return {key: statistics.median(values) * 1e3 for key, values in times.items()}


def gemm_ceiling(threads):
    """(fp32 GFLOP/s, bf16 GFLOP/s, GB/s) of this machine now."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "gemm_ceiling"
        source = HERE / "gemm_ceiling.c"
        subprocess.run(["cc", "-O3", "-march=native", "-o", program, source, "-ldnnl", "-lpthread", "-lgomp"], check=True)
        found = subprocess.run([program, "1024", str(threads), "1.5"], check=True, capture_output=True, text=True)
    return [float(x) for x in found.stdout.split()]


def floor_ms(model, case, dtype, ceiling):
    """Each pass costs its weights' and caches' bytes at memory speed, or its multiplications at the matrix library's."""
    fp32, bf16, read = ceiling
    shape = Shape(model, LAYERS, WIDTH, WIDTH // 64, FFN, VOCAB[model])
    sequences, beams = CASES[model][case]
    size, rate = (4, fp32) if dtype == "fp32" else (2, bf16)
    return generate_floor(shape, sequences, PROMPT, NEW, beams, size, Speed(read, rate)) / 1e6


def precision(name):
    return name.split()[-1].replace("fp32", "f32")


def report(model, times, peaks, ceiling, names):
    """Prints the model's tables; returns `times` with the floors."""
    cases, known = list(CASES[model]), dict(times)
    print(f"\n{TITLE[model]}, {PROMPT} tokens in, {NEW} out, milliseconds (median); peak of the process's resident memory:\n")
    rows = [[n, *(f"{times[n, c]:.0f}" for c in (*cases, "first token")), f"{peaks[n] / 1e6:.0f} MB"] for n in names]
    for dtype in ("fp32", "bf16"):
        if ceiling[dtype == "bf16"] <= 0:
            continue
        known |= {(f"floor {dtype}", c): floor_ms(model, c, dtype, ceiling) for c in cases}
        rows.append([f"floor {dtype}", *(f"{known[f'floor {dtype}', c]:.0f}" for c in cases), "", ""])
    print(table([TITLE[model], *cases, "first token", "peak"], rows))
    print("\nShare of the floor's speed:\n")
    shares = [(n, "floor fp32" if precision(n) == "f32" else "floor bf16") for n in names if precision(n) != "int8"]
    shares = [(n, floor) for n, floor in shares if (floor, cases[0]) in known]
    print(table(["", *cases], [[n, *(f"{known[floor, c] / known[n, c]:.0%}" for c in cases)] for n, floor in shares]))
    mine, peers = ([n for n in names if n.startswith("ours") == ours] for ours in (True, False))
    pairs = [(m, p) for m in mine for p in peers if precision(p) == precision(m) or (p, m) == ("ctranslate2 int8", "ours bf16")]
    if pairs:
        print("\nTimes as fast as a peer:\n")
        columns = (*cases, "first token")
        print(table(["", *columns], [[f"{m} / {p}", *(f"{times[p, c] / times[m, c]:.2f}" for c in columns)] for m, p in pairs]))
    return known


def run_model(model, a):
    """{(model, name, case): ms}, everything about the model printed."""
    folder = pathlib.Path(a.cache) / model
    making = [sys.executable, __file__, "--make", model, folder, a.llama_source or "", *a.only]
    subprocess.run(list(map(str, making)), check=True)  # its threads and memory end with it
    running, answers = start_engines(a.only, model, folder, a.threads, a.llama_python)
    if not running:
        raise SystemExit(f"{TITLE[model]}: no engine runs here")
    try:
        compare(model, running, answers)
        peaks = {n: max(answers[n, c]["peak"] for c in CASES[model]) for n in running}
        before = gemm_ceiling(a.threads)
        times = measure(model, running, a.rounds)
        ceiling = [max(pair) for pair in zip(before, gemm_ceiling(a.threads))]
    finally:
        for process in running.values():
            process.close()
    print(f"\n{TITLE[model]}: {', '.join(dict.fromkeys(p.version for p in running.values()))}.")
    print(f"oneDNN matmul in the same run: fp32 {ceiling[0]:.0f}, bf16 {ceiling[1]:.0f} GFLOP/s; memory {ceiling[2]:.1f} GB/s.")
    return {(model, *key): value for key, value in report(model, times, peaks, ceiling, list(running)).items()}


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    flags = " ".join(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    units = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f in flags]
    return f"{datetime.date.today()}, {os.cpu_count()} x {names[0] if names else platform.machine()} ({' '.join(units)})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--cache", required=True, help="folder that keeps the models")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    arguments.add_argument("--cases", nargs="+", default=["batch 1", "batch 8", "4 beams"])
    arguments.add_argument("--only", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    arguments.add_argument("--llama-python", help="interpreter that has llama_cpp")
    arguments.add_argument("--llama-source", help="unpacked source distribution of llama-cpp-python, for its converter")
    a = arguments.parse_args()
    if not a.llama_python and any(n.startswith("llama") for n in a.only):
        print("llama.cpp is left out: no --llama-python", file=sys.stderr)
        a.only = [n for n in a.only if not n.startswith("llama")]
    for model in a.models:
        CASES[model] = {case: value for case, value in CASES[model].items() if case in a.cases}
    start, load, times = time.time(), os.getloadavg()[0], {}
    print(f"{machine()}; {a.threads} threads, {a.rounds} rounds; load before {load:.1f}")
    print("Figures hold for an idle machine only: threads that wait for each other suffer most from a third.")
    for model in (m for m in a.models if CASES[m]):
        times |= run_model(model, a)
    wanted = [
        (f"{TITLE[m]}, {c}: {mine} / {peer}", w, times[m, peer, c] / times[m, mine, c])
        for m, c, mine, peer, w in WANTED
        if (m, peer, c) in times and (m, mine, c) in times
    ]
    if wanted:
        rows = [[name, f"{w:.2f}", f"{r:.2f}", "met" if r >= w else "MISSED"] for name, w, r in wanted]
        print("\n" + table(["asked", "wanted", "measured", ""], rows))
    print(f"\n{time.time() - start:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make_files(sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[5:], sys.argv[4])
    elif sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
