"""The example server, by clients that behave and clients that do not: server.py FOLDER, which has the program `server`."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

PROGRAM = pathlib.Path(sys.argv[1]).resolve() / "server"
MODELS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "models"
BERT, GPT2, T5 = (str(MODELS / name) for name in ("bert-punctuate", "gpt2-prose", "t5-pronounce"))
SLOW = b"And it came to pass in those days, that"  # GPT-2 writes 128 tokens more


class Server:
    def __init__(self, model, workers=2, queue=8):
        command = [PROGRAM, model, "0", str(workers), str(queue)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        assert line.startswith("http://127.0.0.1:"), (line, self.process.communicate())
        self.port = int(line.rsplit(":", 1)[1])

    def ask(self, method, path, body=None, **headers):
        """(status, headers, the JSON value of the body)"""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request(method, path, body, headers)
            return read(connection)

    def post(self, path, text):
        return self.ask("POST", path, text)

    def state(self):
        return self.ask("GET", "/status")[2]

    def wait_for(self, **wanted):
        for _ in range(3000):
            state = self.state()
            if all(state[key] == value for key, value in wanted.items()):
                return
            time.sleep(0.01)
        raise AssertionError((state, wanted))

    def connect(self, send):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.sendall(send)
        return connection

    def end(self, number=signal.SIGTERM):
        """Its exit status and what it wrote to standard error."""
        self.process.send_signal(number)
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error.decode()


def read(connection):
    response = connection.getresponse()
    body = response.read()
    return response.status, dict(response.getheaders()), json.loads(body) if body else None


def head(text, path="/generate", length=None):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(text) if length is None else length)


def read_raw(connection):
    """Everything until the other side closes, or one answer with a length."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, dict(response.getheaders()), response.read()


class Tests(unittest.TestCase):
    def serve(self, *arguments, **options):
        server = Server(*arguments, **options)
        self.addCleanup(server.process.stderr.close)
        self.addCleanup(server.process.stdout.close)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server

    def end(self, server, number=signal.SIGTERM):
        self.assertEqual(server.end(number), (0, ""))

    def test_generate(self):
        server = self.serve(T5)
        status, headers, answer = server.post("/generate", "knight")
        self.assertEqual((status, answer), (200, {"text": "N AY1 T", "tokens": 4, "finish": "eos"}))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(server.post("/entities", "knight")[0], 404)  # no task of this model
        self.end(server, signal.SIGINT)

    def test_entities_and_embed(self):
        server = self.serve(BERT)
        text = 'the lord said "unto" \\ moses \u00e9t\u00e9\t\u6c34 where is thy brother'
        raw = text.encode()
        status, _, answer = server.post("/entities", raw)
        self.assertEqual(status, 200)
        found = {raw[e["begin"] : e["end"]].decode(): e for e in answer["entities"]}
        self.assertEqual([found["lord"]["label"], found["moses"]["text"]], ["UPPER", "moses"])
        self.assertTrue(all(e["text"] == piece and 0 <= e["score"] <= 1 for piece, e in found.items()))
        status, _, answer = server.post("/entities", raw + b" nul \0 byte")
        self.assertEqual(status, 200)
        status, _, answer = server.post("/embed", raw)
        self.assertEqual((status, len(answer["embedding"])), (200, 256))
        self.assertEqual(server.post("/embed", raw)[2], answer)
        self.end(server)

    def test_refused(self):
        server = self.serve(T5)
        cases = [
            ("GET", "/", None, 404, {}),
            ("POST", "/nothing", b"x", 404, {}),
            ("GET", "/generate", None, 405, {"Allow": "POST"}),
            ("PUT", "/generate", b"x", 405, {"Allow": "POST"}),
            ("POST", "/status", b"x", 405, {"Allow": "GET"}),
            ("POST", "/generate", b"", 400, {}),
            ("POST", "/generate", b"a \xff b", 400, {}),
            ("POST", "/generate", b"a" * 60000, 400, {}),  # more tokens than the session takes
            ("POST", "/generate", b"a" * 65537, 413, {}),
            ("POST", "/generate", b"a" * 3000000, 413, {}),
        ]
        for method, path, body, wanted, headers in cases:
            with self.subTest(method=method, path=path, body=body and body[:8], bytes=body and len(body)):
                try:
                    status, got, answer = server.ask(method, path, body)
                except (BrokenPipeError, ConnectionResetError):  # it was refused while it was still talking
                    self.assertGreater(len(body), 1000000)
                    continue
                self.assertEqual(status, wanted)
                self.assertLessEqual(headers.items(), got.items())
                self.assertEqual(list(answer), ["error"])
        self.assertIn("UTF-8", server.post("/generate", b"a \xff b")[2]["error"])
        chunked = server.connect(b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual(read_raw(chunked)[0], 411)
        chunked.close()
        for size, wanted in ((65537, 413), (1 << 62, 413), (b"99999999999999999999999", 413), (b"-5", 400), (b"abc", 400)):
            size = size if isinstance(size, bytes) else b"%d" % size
            with contextlib.closing(server.connect(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n" % size)) as one:
                status = read_raw(one)[0]
                self.assertTrue(status == wanted or 400 <= status < 500, (size, status))
        self.assertEqual(server.post("/generate", "knight")[2]["text"], "N AY1 T")  # after all that
        self.end(server)

    def test_body_of_the_largest_size_in_pieces(self):
        server = self.serve(BERT)
        text = (b"moses said " * 6000)[:65536]
        with contextlib.closing(server.connect(head(text, "/entities"))) as connection:
            for at in range(0, len(text), 9999):
                connection.sendall(text[at : at + 9999])
                time.sleep(0.01)
            status, _, body = read_raw(connection)
        self.assertEqual(status, 200)
        self.assertGreater(len(json.loads(body)["entities"]), 1000)
        self.end(server)

    def test_one_connection_asks_many_times(self):
        server = self.serve(T5)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.connect()
            first = connection.sock.getsockname()
            for i in range(20):
                connection.request(*(("POST", "/generate", "knight") if i % 3 else ("GET", "/status")))
                status, headers, answer = read(connection)
                self.assertEqual(status, 200)
                self.assertEqual(connection.sock and connection.sock.getsockname(), first)
                self.assertTrue(i % 3 == 0 or answer["text"] == "N AY1 T")
        self.end(server)

    def burst(self, server, count):
        """Requests whose last byte comes at the same time; their answers in any order."""
        connections = [server.connect(head(SLOW) + SLOW[:-1]) for _ in range(count)]
        for connection in connections:
            connection.sendall(SLOW[-1:])
        return connections

    def test_no_more_at_once_than_workers_and_queue(self):
        server = self.serve(GPT2, workers=2, queue=3)
        connections = self.burst(server, 20)
        most = {"working": 0, "waiting": 0}
        while True:
            state = server.state()
            most = {key: max(most[key], state[key]) for key in most}
            if state["working"] + state["waiting"] == 0 and state["served"] + state["refused"] == 20:
                break
        answers = [read_raw(connection) for connection in connections]
        for connection in connections:
            connection.close()
        good = [json.loads(body) for status, _, body in answers if status == 200]
        refused = [(headers["Retry-After"], json.loads(body)) for status, headers, body in answers if status == 503]
        self.assertEqual(len(good) + len(refused), 20)
        self.assertEqual((len(good), len(refused)), (state["served"], state["refused"]))
        self.assertGreaterEqual(len(good), 3)
        self.assertGreaterEqual(len(refused), 5)
        self.assertEqual(refused, [("1", {"error": "too many requests are waiting"})] * len(refused))
        self.assertLessEqual(most["working"], 2)
        self.assertLessEqual(most["waiting"], 3)
        self.assertGreater(most["working"], 0)
        self.assertTrue(all(answer["tokens"] > 10 for answer in good))
        self.assertEqual(server.post("/generate", SLOW)[0], 200)  # it takes requests again
        self.end(server)

    def test_clients_that_leave(self):
        server = self.serve(GPT2, workers=1, queue=8)
        for connection in self.burst(server, 6):  # asked, and gone
            connection.close()
        server.connect(head(SLOW) + SLOW[:5]).close()  # half a body
        server.connect(b"POST /gen").close()  # half a head
        server.connect(b"\x16\x03\x01 no HTTP at all\r\n\r\n").close()
        server.wait_for(working=0, waiting=0)
        self.assertEqual(server.post("/generate", SLOW)[0], 200)
        self.end(server)

    def test_end_with_requests_in_flight(self):
        server = self.serve(GPT2, workers=1, queue=8)
        connections = self.burst(server, 5)
        while server.state()["waiting"] + server.state()["working"] < 2:  # they are there
            pass
        idle = server.connect(b"")
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)
        statuses = [read_raw(connection)[0] for connection in connections]
        self.assertEqual(statuses, [200] * 5)
        _, error = server.process.communicate(timeout=60)
        self.assertEqual((server.process.returncode, error), (0, b""))
        with self.assertRaises(OSError):
            server.connect(b"")
        for connection in [idle, *connections]:
            connection.close()

    def test_end_with_half_a_request(self):
        server = self.serve(T5)
        half = server.connect(head(b"knight") + b"kni")
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        kept.request("GET", "/status")
        read(kept)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        kept.request("POST", "/generate", "knight")  # on a connection that is open
        status, headers, _ = read(kept)
        self.assertEqual((status, headers["Connection"]), (503, "close"))
        half.sendall(b"ght")
        self.assertEqual(read_raw(half)[0], 503)
        _, error = server.process.communicate(timeout=60)
        self.assertEqual((server.process.returncode, error), (0, b""))
        half.close()
        kept.close()

    def test_many_clients(self):
        server = self.serve(T5, workers=4, queue=64)
        wrong = []

        def client():
            for word, sounds in (("knight", "N AY1 T"), ("rhythm", "R IH1 TH AH0 M"), ("harbour", "HH AA1 R B ER0")) * 5:
                status, _, answer = server.post("/generate", word)
                if status != 200 or answer["text"] != sounds:
                    wrong.append((status, answer))

        clients = [threading.Thread(target=client) for _ in range(16)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        self.assertEqual(wrong, [])
        self.assertEqual(server.state()["served"], 16 * 15)
        self.end(server)

    def test_arguments(self):
        taken = self.serve(T5)
        cases = [([], 2, b"usage"), ([T5, "x"], 2, b'"x"'), ([T5, "65536"], 2, b"65536"), ([T5, "0", "0"], 2, b"1 to 64")]
        cases += [(["/no/such/model"], 1, b"/no/such/model"), ([T5, str(taken.port)], 1, b"in use"), ([T5, "0", "1", "0"], 2, b"1 to 128")]
        for arguments, status, text in cases:
            done = subprocess.run([PROGRAM, *arguments], capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout), (status, b""), (arguments, done.stderr))
            self.assertIn(text, done.stderr)
        self.end(taken)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # "auto" is the CPU on every machine
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
