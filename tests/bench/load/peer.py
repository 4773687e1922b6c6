"""examples/web on transformers: the same service in front of the same checkpoints, for load_test.py. A worker process has all models."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples/web"))

import app
import torch
import transformers

MODELS = ("ENTITIES_MODEL", "REWRITE_MODEL", "COMPLETE_MODEL")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Entities(app.Entities):
    def __init__(self, path, device, dtype):
        self.pipeline = transformers.pipeline("token-classification", path, aggregation_strategy="simple", device=device, dtype=dtype)

    def __call__(self, text, max_new_tokens=None):
        found = self.pipeline(text)
        places = [(e["start"], e["end"]) for e in found]
        return {
            "entities": [
                dict(label=e["entity_group"], score=float(e["score"]), text=text[start:end], start=start, end=end)
                for e, (start, end) in zip(found, places)
            ]
        }


class Generation(app.Generation):
    def __init__(self, kind, path, device, dtype):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self.model = kind.from_pretrained(path, dtype=dtype).to(device).eval()

    def __call__(self, text, max_new_tokens=40):
        given = self.tokenizer(text, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            ids = self.model.generate(given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=max_new_tokens)
        new = ids[0] if self.model.config.is_encoder_decoder else ids[0, given["input_ids"].shape[1] :]
        finish = "eos" if int(new[-1]) == self.model.generation_config.eos_token_id else "length"
        return {"text": self.tokenizer.decode(new, skip_special_tokens=True), "finish": finish}


def wait_for_models():
    """load_test.py makes them while the processes start; what takes long and needs no model comes first."""
    torch.zeros(1, device=os.environ["DEVICE"])
    for name in ("pipeline", "BertForTokenClassification", "T5ForConditionalGeneration", "GPT2LMHeadModel"):
        getattr(transformers, name)  # is imported now
    while not all(os.path.exists(os.environ[name]) for name in MODELS):
        time.sleep(0.1)


def create():
    wait_for_models()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ["WORKERS"])))
    transformers.utils.logging.set_verbosity_error()
    options = dict(device=os.environ["DEVICE"], dtype=DTYPES[os.environ["DTYPE"]])
    tasks = {
        "/entities": Entities(os.environ["ENTITIES_MODEL"], **options),
        "/rewrite": Generation(transformers.T5ForConditionalGeneration, os.environ["REWRITE_MODEL"], **options),
        "/complete": Generation(transformers.GPT2LMHeadModel, os.environ["COMPLETE_MODEL"], **options),
    }
    service = app.create(tasks)
    print(f"a worker is ready at {time.monotonic()}", flush=True)
    return service
