"""A web service: text in, entities or rewritten text out. gunicorn runs it with gunicorn.conf.py; README.md has the commands.

    POST /entities  {"text": "..."}                         {"entities": [{"label", "score", "text", "start", "end"}, ...]}
    POST /rewrite   {"text": "...", "max_new_tokens": 40}   {"text": "...", "finish": "eos"}
    POST /complete  the same                                the same
    GET  /health                                            {"routes": ["/entities", ...]}, once every model has answered

There is no queue and no batching in here. One process holds each model once and a request is a thread of it; threads that are inside
the library at the same time share its passes over the weights. What is left to do is what a service owes its clients: limits, and errors
that say what was wrong.
"""

import json
import os
import pathlib
import threading

import falcon
import tfinfer

INSIDE = 16  # requests that compute at the same time; more wait
WAIT_S = 5.0  # so long; then 503
BODY_BYTES = 65536  # more is 413
PROMPT_TOKENS = 256  # more is 422, and so are more
NEW_TOKENS = 128  # than these
GENERATE_S = 20.0  # then a text ends where it is, with the finish "time"; less than gunicorn's graceful_timeout

DEMO = pathlib.Path(__file__).resolve().parent.parent / "models"


class Entities:
    """Of a text: by position, with labels, from a checkpoint for token classification."""

    def __init__(self, path, **options):
        self.model = tfinfer.Model.open(path, **options)

    def probe(self):
        """A little work, which fails if the checkpoint is none for the task, or its device has failed."""
        self("a")

    def __call__(self, text, max_new_tokens=None):
        if max_new_tokens is not None:
            raise ValueError("max_new_tokens: entities are not generated")
        found = self.model.ner(text)
        return {"entities": [dict(label=e.label, score=e.score, text=e.text, start=e.start, end=e.end) for e in found]}


class Generation:
    """What T5 makes of a text, or GPT-2 writes behind it."""

    def __init__(self, path, **options):
        room = INSIDE * (PROMPT_TOKENS + NEW_TOKENS) + 32  # for all that compute at once, and a probe: none finds the model full
        self.model = tfinfer.Model.open(path, kv_tokens=room, **options)

    def probe(self):
        self("a", max_new_tokens=1)

    def __call__(self, text, max_new_tokens=40):
        ids = self.model.tokenizer(text)["input_ids"]
        if len(ids) > PROMPT_TOKENS:
            raise ValueError(f"text has {len(ids)} tokens, {PROMPT_TOKENS} are the most")
        if not 1 <= max_new_tokens <= NEW_TOKENS:
            raise ValueError(f"max_new_tokens must be from 1 to {NEW_TOKENS}")
        [result] = self.model.generate(ids, max_new_tokens=max_new_tokens, max_time=GENERATE_S)
        return {"text": result.text, "finish": result.finish}


class Route:
    """Of one task: a function of a text that may take `max_new_tokens` and gives what is to be answered as JSON."""

    def __init__(self, task, places):
        self.task, self.places = task, places

    def on_post(self, request, response):
        given = arguments(request)
        if not self.places.acquire(timeout=WAIT_S):
            raise falcon.HTTPServiceUnavailable(description="too many requests at once; try again", retry_after=1)
        try:
            answer = self.task(**given)
        except tfinfer.errors.BusyError as error:
            raise falcon.HTTPServiceUnavailable(description=str(error), retry_after=1) from error
        except ValueError as error:  # the library says what is wrong with a text
            raise falcon.HTTPUnprocessableEntity(description=str(error)) from error
        finally:
            self.places.release()
        response.text = json.dumps(answer)


class Health:
    """A model that cannot compute any more, because its device has failed, makes this 500."""

    def __init__(self, tasks):
        self.tasks = tasks

    def on_get(self, request, response):
        for task in self.tasks.values():
            try:
                task.probe()
            except tfinfer.errors.BusyError:
                pass  # computing for others
        response.text = json.dumps({"routes": list(self.tasks)})


def arguments(request):
    """The task's, out of a body that anybody may have sent."""
    if request.content_length is None:
        raise falcon.HTTPLengthRequired(description="send a Content-Length")
    if request.content_length > BODY_BYTES:
        raise falcon.HTTPContentTooLarge(description=f"the body has {request.content_length} bytes, {BODY_BYTES} are the most")
    try:
        body = json.loads(request.bounded_stream.read())
    except OSError as error:  # gunicorn.conf.py says how long it may take
        raise falcon.HTTPError(falcon.HTTP_408, description="the body did not come") from error
    except (ValueError, RecursionError) as error:
        raise falcon.HTTPBadRequest(description=f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise falcon.HTTPBadRequest(description="the body must be a JSON object")
    for name, kind, what in (("text", str, "a string"), ("max_new_tokens", int, "an integer")):
        if name in body and type(body[name]) is not kind:  # True is an int too
            raise falcon.HTTPUnprocessableEntity(description=f"{name} must be {what}")
    unknown = body.keys() - {"text", "max_new_tokens"}
    if unknown:
        raise falcon.HTTPUnprocessableEntity(description=f"unknown key {min(unknown)}")
    if not body.get("text"):
        raise falcon.HTTPUnprocessableEntity(description="text is missing or empty")
    return body


def open_tasks():
    """The models that the environment names, else those that come with the library."""
    options = dict(device=os.environ.get("DEVICE", "auto"), dtype=os.environ.get("DTYPE", "auto"))
    tasks = {
        "/entities": Entities(os.environ.get("ENTITIES_MODEL", DEMO / "bert-punctuate"), **options),
        "/rewrite": Generation(os.environ.get("REWRITE_MODEL", DEMO / "t5-pronounce"), **options),
        "/complete": Generation(os.environ.get("COMPLETE_MODEL", DEMO / "gpt2-prose"), **options),
    }
    for task in tasks.values():
        task.probe()  # a checkpoint that cannot do its task is no service
    return tasks


def create(tasks=None):
    """What gunicorn calls, in the process that will serve: a GPU's models cannot be opened before a fork."""
    tasks = open_tasks() if tasks is None else tasks
    service = falcon.App(media_type=falcon.MEDIA_JSON)
    places = threading.BoundedSemaphore(INSIDE)
    for path, task in tasks.items():
        service.add_route(path, Route(task, places))
    service.add_route("/health", Health(tasks))
    return service
