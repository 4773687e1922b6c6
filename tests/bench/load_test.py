"""examples/web under load, beside the same service on transformers: requests a second and how long they take, as Markdown.

    TFINFER_LIBRARY=build/release/src/libtfinfer.so PYTHONPATH=bindings/python/src python tests/bench/load_test.py --cache FOLDER
        [--device cuda] [--seconds 60] [--warmup 20] [--routes /entities ...] [--dtype bf16] [--tiny]

BERT-base with 45 labels and texts of 5 to 40 tokens; T5-base v1.1 with a vocabulary of 32000 and GPT-2 medium, 40 tokens in and 40 out,
greedy, the end token barred; weights drawn at random, fp32 on the CPU and fp16 on a GPU, made once and kept in --cache. This library is one
process with threads, as examples/web has it; transformers are four processes, each with all models (load/peer.py). wrk is the
load generator: 16 users on connections of their own, without a pause between an answer and the next request, which is one of 300 texts
drawn at random. The servers take turns, a route at a time; a turn begins when nothing computes any more and has its own warm-up, which does
not count. What they answer is compared.

Wants wrk, the packages of tests/requirements.txt, and the folder with vocabularies and texts that TFINFER_TEST_DATA names. --tiny: models of
two narrow layers, to try the script.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import json
import math
import multiprocessing
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from figures import make, table

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = pathlib.Path(os.environ.get("TFINFER_TEST_DATA", ROOT.parent / "shared/data"))
USERS, TEXTS, TOKENS, WORKERS = 16, 300, 40, 4
ROUTES = {"/entities": "BERT-base, 45 labels", "/rewrite": "T5-base v1.1, 40 + 40", "/complete": "GPT-2 medium, 40 + 40"}
VARIABLES = {"/entities": "ENTITIES_MODEL", "/rewrite": "REWRITE_MODEL", "/complete": "COMPLETE_MODEL"}
OURS, PEER = "tfinfer", "transformers"
BEGIN = time.monotonic()


def log(*words):
    print(f"{time.monotonic() - BEGIN:4.0f} s:", *words, file=sys.stderr, flush=True)


# ---- checkpoints and texts; each in a process of its own, so that torch is not in this one ----


def configuration(route, tiny):
    import transformers

    if route == "/entities":
        labels = ["O"] + [f"{position}-{kind}" for kind in range(22) for position in "BI"]
        size = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96) if tiny else {}
        return transformers.BertForTokenClassification, transformers.BertConfig(id2label=dict(enumerate(labels)), **size)
    if route == "/rewrite":
        size = dict(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12)
        size = dict(d_model=64, d_kv=32, d_ff=96, num_layers=2, num_heads=2) if tiny else size
        kind = dict(vocab_size=32000, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
        return transformers.T5ForConditionalGeneration, transformers.T5Config(**size, **kind)
    size = dict(n_embd=64, n_layer=2, n_head=2) if tiny else dict(n_embd=1024, n_layer=24, n_head=16)
    return transformers.GPT2LMHeadModel, transformers.GPT2Config(**size)


def tokenizer_of(route):
    """The real one's rules and vocabulary."""
    import tokenizers
    import transformers

    folder = DATA / "tokenizers"
    if route == "/complete":
        gpt2 = tokenizers.ByteLevelBPETokenizer(str(folder / "gpt2/encoder.json"), str(folder / "gpt2/vocab.bpe"))
        return transformers.PreTrainedTokenizerFast(tokenizer_object=gpt2._tokenizer, eos_token="<|endoftext|>")
    name, padding = {"/entities": ("bert-base-uncased", "[PAD]"), "/rewrite": ("t5-small", "<pad>")}[route]
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "hf-json" / name / "tokenizer.json"), pad_token=padding)


def save_checkpoint(route, tiny, dtype, device, path):
    """The word table is a tenth as large as transformers draws it: else GPT-2 repeats its last word, whatever the layers say."""
    import torch

    kind, config = configuration(route, tiny)
    torch.manual_seed(1)
    with torch.device(device):
        model = kind(config)
    model.get_input_embeddings().weight.data.mul_(0.1)
    if route != "/entities":
        lengths = dict(min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False)
        model.generation_config.update(**lengths, pad_token_id=0 if route == "/rewrite" else config.eos_token_id)
    model.to({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]).save_pretrained(path)
    tokenizer_of(route).save_pretrained(path)


def draw_texts(route):
    """Pieces of a novel: of 5 to 40 tokens for entities, else of 40."""
    tokenizer, rng = tokenizer_of(route), random.Random(1)
    words, found = (DATA / "text/botchan.txt").read_text(encoding="utf-8").split(), []
    while len(found) < TEXTS:
        begin, wanted = rng.randrange(len(words) - TOKENS), rng.randint(5, TOKENS) if route == "/entities" else TOKENS
        for end in range(begin + 1, begin + TOKENS + 1):
            text = " ".join(words[begin:end])
            if (count := len(tokenizer(text)["input_ids"])) >= wanted:
                break
        if count == wanted:
            found.append(text)
    return found


def prepare(route, tiny, dtype, device, path):
    make(path, lambda part: save_checkpoint(route, tiny, dtype, device, part))
    return draw_texts(route)


# ---- servers ----


class Server:
    def __init__(self, name, port, a, paths, folder):
        self.name, self.url, self.log = name, f"http://127.0.0.1:{port}", folder / f"{name}.log"
        command = [sys.executable, "-m", "gunicorn", "-c", ROOT / "examples/web/gunicorn.conf.py"]
        folders = [os.environ.get("PYTHONPATH", "")]
        if name == PEER:  # a process takes one request at a time, whoever is free takes the next
            command += ["--workers", str(WORKERS), "--worker-class", "sync", "--timeout", "600", "peer:create()"]
            folders.insert(0, str(HERE / "load"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), "BIND": self.url[7:], "WORKERS": str(WORKERS)}
        environment |= {"DEVICE": a.device, "DTYPE": a.dtype} | {VARIABLES[route]: str(path) for route, path in paths.items()}
        with open(self.log, "w") as out:
            self.process = subprocess.Popen(list(map(str, command)), env=environment, stdout=out, stderr=subprocess.STDOUT)

    def wait(self, limit=300):
        """Until all of its processes answer."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ready() < math.inf and urllib.request.urlopen(self.url + "/health", timeout=limit).status == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not start:\n{self.log.read_text()[-4000:]}")

    def ready(self):
        """When the last of the peer's processes was; infinity while one is not."""
        times = re.findall(r"a worker is ready at (\S+)", self.log.read_text())
        return 0 if self.name == OURS else float(times[-1]) if len(times) >= WORKERS else math.inf

    def post(self, route, body):
        request = urllib.request.Request(self.url + route, body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            log(f"{self.name}: {error}: {error.read().decode()}")
            return {"failed": self.name}

    def settle(self):
        """Until what clients have left behind is computed: two looks half a second apart find nothing done."""
        end, before = time.monotonic() + 1200, None
        while before is None or self.ticks() - before > 2:
            before = self.ticks()
            time.sleep(0.5)
            if time.monotonic() > end:
                raise SystemExit(f"{self.name} computes for nobody")

    def ticks(self):
        """Of processor time of all its processes."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        stats = (pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children)
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()


# ---- measuring ----


def load(server, route, bodies, a):
    """(requests a second, median ms, 99th percentile ms, failures) of the time behind the warm-up; NaN if nothing was answered. Connections
    that broke are failures too, the warm-up's with them."""
    time_s = a.warmup + a.seconds
    command = [a.wrk, f"-t{USERS}", f"-c{USERS}", f"-d{time_s}s", "--timeout", "600s", "-s", str(HERE / "load/post.lua")]
    arguments = [str(bodies), str(a.warmup), str(random.randrange(1000))]
    done = subprocess.run([*command, server.url + route, "--", *arguments], capture_output=True, text=True)
    answers = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("answer ")]
    if done.returncode:
        raise SystemExit(f"wrk: {done.stdout[-2000:]}{done.stderr}")
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    failures = sum(map(int, broken.groups())) if broken else 0
    if not answers:
        return 0, math.nan, math.nan, failures
    times = sorted(int(microseconds) / 1e3 for _, microseconds in answers)
    failures += sum(status != "200" for status, _ in answers)
    return len(times) / a.seconds, statistics.median(times), times[min(len(times) - 1, int(0.99 * len(times)))], failures


def compare(servers, route, texts):
    """How many answers to the same texts are the same, scores apart; the first difference is shown."""
    bodies = [json.dumps({"text": text}) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        asked = [[pool.submit(server.post, route, body) for body in bodies] for server in servers]
        pairs = [tuple(one.result() for one in pair) for pair in zip(*asked)]
    different = [pair for pair in pairs if without_scores(pair[0]) != without_scores(pair[1])]
    for pair in different[:1]:
        parts = zip(*(answer.get("entities", [answer]) for answer in pair))
        log("a difference:", json.dumps([both for both in parts if without_scores(both[0]) != without_scores(both[1])][:2])[:800])
    return len(pairs) - len(different)


def without_scores(answer):
    if isinstance(answer, list):
        return [without_scores(one) for one in answer]
    return {key: without_scores(value) if key == "entities" else value for key, value in answer.items() if key != "score"}


def machine(a):
    name = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    text = f"{len(os.sched_getaffinity(0))} cores of {name}, load {os.getloadavg()[0]:.1f}"
    if a.device != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        text += "; " + subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return f"{datetime.date.today()}, {text}; {a.device}, {a.dtype}"


def turn(server, other, route, bodies, a):
    """Of one server, when neither computes; the peer may not be up yet in the first one."""
    for one in (server, other):
        if one.ready() < math.inf:
            one.settle()
    figures = rate, median, late, failures = load(server, route, bodies, a)
    times = f"p50 {median:.1f} ms, p99 {late:.1f} ms"
    log(f"{route} {server.name}: {rate:.1f}/s, {times}, {failures} failed, load {os.getloadavg()[0]:.1f}")
    if failures:
        log(server.log.read_text()[-3000:])
    return figures


def measure(ours, peer, texts, a, folder):
    rows = []
    for route in a.routes:
        bodies = folder / "bodies.txt"
        bodies.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[route]))
        begin = time.monotonic()
        figures = turn(ours, peer, route, bodies, a)
        if peer.ready() > begin + a.warmup:
            peer.wait()
            log("again: the peer was not up before the warm-up was over")
            figures = turn(ours, peer, route, bodies, a)
        log(f"{route}: {compare([ours, peer], route, texts[route][:8])} of 8 answers are the same")
        rate, median, late, lost = figures
        slow, slow_median, slow_late, slow_lost = turn(peer, ours, route, bodies, a)
        values = (rate, slow, rate / slow if slow else math.nan, median, slow_median, late, slow_late)
        cells = [f"{v:.0f}" if v >= 1000 else f"{v:.3g}" for v in values]
        rows.append([ROUTES[route], *cells, lost + slow_lost])
        print(f"{route} done: {rows[-1]}", flush=True)
    return rows


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cache", type=pathlib.Path, required=True)
    arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments.add_argument("--dtype", choices=["fp32", "bf16", "fp16"])
    arguments.add_argument("--seconds", type=int, default=30)
    arguments.add_argument("--warmup", type=int, default=20)
    arguments.add_argument("--routes", nargs="+", default=list(ROUTES), choices=list(ROUTES))
    arguments.add_argument("--wrk", default="wrk")
    arguments.add_argument("--port", type=int, default=18080)
    arguments.add_argument("--tiny", action="store_true")
    a = arguments.parse_args()
    a.dtype = a.dtype or ("fp32" if a.device == "cpu" else "fp16")
    a.cache.mkdir(parents=True, exist_ok=True)
    size = "tiny" if a.tiny else "load"
    paths = {route: a.cache.resolve() / f"{size}-{route[1:]}-{a.dtype}" for route in ROUTES}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        peer = Server(PEER, a.port, a, paths, pathlib.Path(folder))  # waits for its models by itself
        stack.callback(peer.close)
        with concurrent.futures.ProcessPoolExecutor(len(ROUTES), multiprocessing.get_context("spawn")) as pool:
            made = {route: pool.submit(prepare, route, a.tiny, a.dtype, a.device, path) for route, path in paths.items()}
            texts = {route: one.result() for route, one in made.items()}
        log("checkpoints and texts are there")
        ours = Server(OURS, a.port + 1, a, paths, pathlib.Path(folder))
        stack.callback(ours.close)
        ours.wait()
        log(f"{OURS} is up")
        if a.device == "cpu":  # the peer's start takes the processor for longer than a warm-up
            peer.wait()
        print(machine(a), flush=True)
        rows = measure(ours, peer, texts, a, pathlib.Path(folder))
    header = ["", "tfinfer, requests/s", "transformers", "times as many", "p50, ms", "transformers", "p99, ms", "transformers", "failed"]
    print(f"{USERS} users, warm-up {a.warmup} s, then {a.seconds} s; {time.monotonic() - BEGIN:.0f} s in all\n")
    print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
