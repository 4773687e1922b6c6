"""examples/web: what gunicorn answers is what the library gives, alone and under concurrent requests; limits, errors, and a clean end."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("gunicorn")
falcon_testing = pytest.importorskip("falcon.testing")
tfinfer = pytest.importorskip("tfinfer")

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples/models"
sys.path.insert(0, str(ROOT / "examples/web"))

import app

SEED = int(os.environ.get("TFC_SEED") or random.SystemRandom().randrange(2**31))
WORDS = "in the beginning there was a harbour and the lord said unto moses where is thy brother queue knight banana".split()


def draw(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))


class Server:
    """gunicorn as README.md starts it, on a free port; `settings` are of its environment."""

    def __init__(self, log, **settings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {**os.environ, "BIND": f"127.0.0.1:{self.port}", "DEVICE": "cpu", "DTYPE": "fp32", **settings}
        command = [sys.executable, "-m", "gunicorn", "-c", ROOT / "examples/web/gunicorn.conf.py"]
        self.log = log
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            try:
                assert self.ask("GET", "/health")[0] == 200
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(log.read_text())

    def ask(self, method, path, body=None, headers=None):
        """Status and what the JSON says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            assert answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def post(self, path, **body):
        return self.ask("POST", path, json.dumps(body))

    def send(self, path, **body):
        """A connection that waits for its answer."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(data), data))
        return connection

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("web") / "log")
    yield one
    assert one.end() == 0
    assert "Traceback" not in one.log.read_text()


@pytest.fixture(scope="module")
def tasks():
    """What the routes should answer, by direct calls."""
    names = {"/entities": "bert-punctuate", "/rewrite": "t5-pronounce", "/complete": "gpt2-prose"}
    models = {path: tfinfer.Model.open(MODELS / name, device="cpu", dtype="fp32") for path, name in names.items()}

    def entities(words):
        found = models["/entities"].ner(words)
        return {"entities": [dict(label=e.label, score=e.score, text=e.text, start=e.start, end=e.end) for e in found]}

    def generation(path):
        def answer(words, max_new_tokens=40):
            [result] = models[path].generate(words, max_new_tokens=max_new_tokens)
            return {"text": result.text, "finish": result.finish}

        return answer

    return {"/entities": entities, "/rewrite": generation("/rewrite"), "/complete": generation("/complete")}


def test_answers_are_the_librarys(server, tasks):
    for path, task in tasks.items():
        assert server.post(path, text="the harbour") == (200, task("the harbour"))
    assert server.post("/complete", text="He said", max_new_tokens=3) == (200, tasks["/complete"]("He said", 3))
    assert server.post("/entities", text="the lord said unto moses")[1]["entities"][0]["label"] == "Capital"
    assert server.post("/rewrite", text="knight")[1] == {"text": "N AY1 T", "finish": "eos"}
    assert server.ask("GET", "/health") == (200, {"routes": list(tasks)})


def test_many_clients_at_once(server, tasks):
    """More than there are threads; each gets the answer to its own text."""
    rng = random.Random(SEED)
    wanted = []
    for _ in range(80):
        path, words = rng.choice(list(tasks)), draw(rng)
        wanted.append((path, words, tasks[path](words)))
    with concurrent.futures.ThreadPoolExecutor(48) as clients:
        given = list(clients.map(lambda one: server.post(one[0], text=one[1]), wanted))
    for (path, words, want), got in zip(wanted, given):
        assert got == (200, want), f"TFC_SEED={SEED}: {path} {words}"


@pytest.mark.parametrize(
    "body,status,says",
    [
        ("", 400, "not JSON"),
        ("{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        ("[" * 60000, 400, "not JSON"),
        ('{"max_new_tokens": ' + "9" * 5000 + "}", 400, "not JSON"),
        ('"text"', 400, "JSON object"),
        ("{}", 422, "text is missing"),
        ('{"text": ""}', 422, "text is missing"),
        ('{"text": 7}', 422, "text must be a string"),
        ('{"text": null}', 422, "text must be a string"),
        (r'{"text": "\ud800"}', 422, "surrogates"),
        ('{"text": "a", "temperature": 2}', 422, "unknown key temperature"),
        ('{"text": "a", "max_new_tokens": "3"}', 422, "must be an integer"),
        ('{"text": "a", "max_new_tokens": true}', 422, "must be an integer"),
        ('{"text": "a", "max_new_tokens": 0}', 422, "from 1 to"),
        ('{"text": "a", "max_new_tokens": 129}', 422, "from 1 to"),
        ('{"text": "a", "max_new_tokens": 99999999999999999999}', 422, "from 1 to"),
        (json.dumps({"text": "who " * 300}), 422, "tokens, 256 are the most"),
        (json.dumps({"text": "a" * 65536}), 413, "65536 are the most"),
    ],
)
def test_bad_bodies(server, body, status, says):
    got, answer = server.ask("POST", "/complete", body)
    assert got == status and says in answer["description"], answer


def test_bad_requests(server):
    assert server.post("/entities", text="a", max_new_tokens=3)[0] == 422
    status, answer = server.post("/entities", text="word " * 2000)  # the library says it
    assert status == 422 and "2002" in answer["description"], answer
    assert server.ask("GET", "/entities")[0] == 405
    assert server.post("/nothing", text="a")[0] == 404
    assert server.ask("POST", "/rewrite", iter([b'{"text": "a"}']), {"Transfer-Encoding": "chunked"})[0] == 411
    assert server.post("/rewrite", text="knight")[0] == 200


def test_clients_that_leave(server):
    for _ in range(20):
        server.send("/complete", text="In the", max_new_tokens=128).close()
    assert server.post("/rewrite", text="knight")[1]["text"] == "N AY1 T"


def test_clients_that_fall_silent(tmp_path):
    """More than there are threads, in the middle of a request: gunicorn.conf.py lets them go."""
    server = Server(tmp_path / "log")
    halves = [b"POST /rewrite HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{", b"POST /rew"]
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(70)]
    for client, half in zip(clients, halves * 35):
        client.sendall(half)
    assert server.post("/rewrite", text="knight")[0] == 200
    answer = http.client.HTTPResponse(clients[0])
    answer.begin()
    assert answer.status == 408 and clients[1].recv(1) == b""
    for client in clients:
        client.close()
    assert server.end() == 0


def test_a_checkpoint_that_cannot_do_its_task(tmp_path):
    for model, says in (("/no/such", "/no/such"), (MODELS / "bert-punctuate", "BertForTokenClassification")):
        with pytest.raises(AssertionError, match=says):
            Server(tmp_path / "log", REWRITE_MODEL=str(model))


def test_sigterm_answers_what_is_under_way(tmp_path, tasks):
    server = Server(tmp_path / "log")
    want = tasks["/complete"]("In the morning", 128)
    clients = [server.send("/complete", text="In the morning", max_new_tokens=128) for _ in range(app.INSIDE)]
    assert server.ask("GET", "/health")[0] == 200  # taken behind them, and shorter
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 200 and json.loads(answer.read()) == want
        client.close()
    assert server.process.wait(30) == 0
    with pytest.raises(OSError):
        server.ask("GET", "/health")


class Task:
    """A function of a text as a route's task."""

    def __init__(self, function):
        self.function = function

    def __call__(self, text):
        return self.function(text)

    def probe(self):
        self.function("a")


def client_of(function):
    return falcon_testing.TestClient(app.create({"/task": Task(function)}))


def test_places_run_out(monkeypatch):
    monkeypatch.setattr(app, "INSIDE", 1)
    monkeypatch.setattr(app, "WAIT_S", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def task(text):
        entered.set()
        assert leave.wait(30)
        return {"text": text}

    client = client_of(task)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        first = other.submit(client.simulate_post, "/task", body='{"text": "a"}')
        assert entered.wait(30)
        refused = client.simulate_post("/task", body='{"text": "b"}')
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1" and "too many" in refused.json["description"]
        leave.set()
        assert first.result().json == {"text": "a"}
    assert client.simulate_post("/task", body='{"text": "c"}').json == {"text": "c"}


@pytest.mark.parametrize(
    "error,status,health",
    [(tfinfer.errors.BusyError, 503, 200), (tfinfer.errors.InvalidError, 422, 500), (tfinfer.errors.DeviceError, 500, 500)],
)
def test_what_the_library_raises(error, status, health):
    def task(text):
        raise error("why")

    client = client_of(task)
    for _ in range(app.INSIDE + 1):  # a place that was not given back would be missed
        assert client.simulate_post("/task", body='{"text": "a"}').status_code == status
    assert client.simulate_get("/health").status_code == health


def test_a_text_ends_in_time(monkeypatch):
    monkeypatch.setattr(app, "GENERATE_S", 1e-6)
    answer = app.Generation(MODELS / "gpt2-prose", device="cpu")("In the", 128)
    assert answer["finish"] == "time"
