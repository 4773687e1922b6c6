"""The example programs on the demo models, as a reader runs them and as a careless one does: programs.py FOLDER [CLASS]

FOLDER has the programs. Nothing but Python's own library is needed. server.py tests the server."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

FOLDER = pathlib.Path(sys.argv[1]).resolve()
MODELS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "models"
BERT, GPT2, T5 = (str(MODELS / name) for name in ("bert-punctuate", "gpt2-prose", "t5-pronounce"))
WORDS = {"harbour": "HH AA1 R B ER0", "quantum": "K W AA1 N T AH0 M", "knight": "N AY1 T", "queue": "K W UW1", "rhythm": "R IH1 TH AH0 M"}


class Programs(unittest.TestCase):
    def run_one(self, *command, text=b"", status=0, out=subprocess.PIPE):
        """(standard output, standard error) as bytes."""
        done = subprocess.run([FOLDER / command[0], *command[1:]], input=text, stdout=out, stderr=subprocess.PIPE, timeout=300)
        self.assertEqual(done.returncode, status, (command, done.stdout, done.stderr.decode(errors="replace")))
        return done.stdout, done.stderr

    def careless(self, program, *arguments):
        """Without arguments, and with a model that is not there (it stands in place of MODEL)."""
        out, error = self.run_one(program, status=2)
        self.assertEqual(out, b"")
        self.assertRegex(error, rb"usage: " + program.removesuffix("_cpp").encode() + rb" ")
        out, error = self.run_one(program, *("/no/such/model" if a == "MODEL" else a for a in arguments), status=1)
        self.assertEqual(out, b"")
        self.assertIn(b"/no/such/model", error)

    def full(self, *command, text=b""):
        """A disk that is full is noticed."""
        with open("/dev/full", "wb") as full:
            _, error = self.run_one(*command, text=text, status=1, out=full)
        self.assertIn(b"No space left", error)


class hello(Programs):
    def test_both_languages_write_the_same(self):
        start = "In the morning the ship"
        c, _ = self.run_one("hello", GPT2, start)
        self.assertRegex(c.decode(), f"^{start}.+ [a-z]+ [a-z]+")
        if (FOLDER / "hello_cpp").exists():
            cpp, _ = self.run_one("hello_cpp", GPT2, start)
            self.assertEqual(c, cpp)

    def test_wrong(self):
        for program in ("hello", "hello_cpp"):
            if (FOLDER / program).exists():
                self.careless(program, "MODEL", "x")
                _, error = self.run_one(program, BERT, "x", status=1)
                self.assertIn(b"generat", error)
                _, error = self.run_one(program, GPT2, b"a \xff", status=1)
                self.assertIn(b"UTF-8", error)
                _, error = self.run_one(program, GPT2, "and he said " * 1000, status=1)
                self.assertRegex(error, rb"\d tokens")


class semantic_search(Programs):
    LINES = ["The boats came home in the evening.", "He put salt on his eggs.", "", "Rain fell on the harbour all night.", "x", "y", "z"]

    def search(self, text, query, **options):
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            return self.run_one("semantic_search", BERT, file.name, query, **options)[0].decode(errors="replace").splitlines()

    def test_a_line_is_nearest_to_itself(self):
        found = self.search("\r\n".join(self.LINES).encode(), self.LINES[3])
        self.assertEqual(len(found), 5)
        self.assertEqual(found[0], "1.000  " + self.LINES[3])
        scores = [float(line.split()[0]) for line in found]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertLess(scores[1], 0.999)
        self.assertTrue(all(line.split("  ", 1)[1] in self.LINES for line in found))

    def test_texts_of_all_kinds(self):
        self.assertEqual(self.search(b"", "x"), [])
        self.assertEqual(self.search(b"\n\n", "x"), [])
        [only] = self.search(b"a \xff b", "x")
        self.assertTrue(only.endswith("a \ufffd b"))
        self.assertEqual(self.search(b"y\0 z\r\n", "x")[0][5:], "  y\0 z")
        [only] = self.search(b"and " * 50000, "x")  # one line of 200 KB, cut to what the model takes
        self.assertEqual(len(only.split()), 50001)

    def test_wrong(self):
        self.careless("semantic_search", "MODEL", "/dev/null", "x")
        _, error = self.run_one("semantic_search", BERT, "/no/such/file", "x", status=1)
        self.assertIn(b"/no/such/file", error)
        _, error = self.run_one("semantic_search", BERT, "/", "x", status=1)
        self.assertIn(b"directory", error)
        self.full("semantic_search", BERT, __file__, "x")


class punctuate(Programs):
    def test_capitals_and_marks(self):
        out, _ = self.run_one("punctuate", BERT, "the lord said unto moses where is thy brother and he answered i know not")
        self.assertEqual(out, b"The LORD said unto Moses, Where is thy brother? And he answered, I know not.\n")
        self.assertEqual(self.run_one("punctuate", BERT, "")[0], b"\n")

    def test_a_text_of_many_windows(self):
        text = "and the lord said unto moses " * 200
        out, _ = self.run_one("punctuate", BERT, text)
        self.assertEqual("".join(c for c in out.decode().lower() if c not in ",.?!:;"), text + "\n")
        self.assertGreater(out.count(b"the LORD said unto Moses"), 150)

    def test_wrong(self):
        self.careless("punctuate", "MODEL", "x")
        _, error = self.run_one("punctuate", BERT, b"\xff", status=1)
        self.assertIn(b"UTF-8", error)
        _, error = self.run_one("punctuate", T5, "x", status=1)
        self.assertIn(b"TF_STATUS_UNSUPPORTED", error)
        self.full("punctuate", BERT, "x")


class ner_spans(Programs):
    def spans(self, text):
        out, _ = self.run_one("ner_spans", BERT, text=text)
        lines = text.split(b"\n")
        for row in out.splitlines():
            number, begin, end, label, score, piece = row.split(b"\t", 5)
            number, begin, end, score = int(number), int(begin), int(end), float(score)
            self.assertEqual(lines[number - 1][begin:end], piece)
            self.assertTrue(0 <= score <= 1)
            yield number, label.decode(), score, piece

    def test_spans(self):
        found = list(self.spans(b"the lord said unto moses where is thy brother\n\nhe \xff said i know not"))
        labels = [(number, label, piece) for number, label, _, piece in found]
        self.assertEqual(labels, [
            (1, "Capital", b"the"), (1, "UPPER", b"lord"), (1, "Capital,", b"moses"), (1, "Capital", b"where"), (1, "lower?", b"brother"),
            (3, "Capital", b"he"), (3, "lower,", b"said"), (3, "Capital", b"i"), (3, "lower.", b"not"),
        ])  # fmt: skip
        for (_, _, score, _), wanted in zip(found, [0.982, 0.993, 0.979, 0.986, 0.965]):
            self.assertAlmostEqual(score, wanted, delta=0.03)

    def test_more_lines_than_a_batch(self):
        numbers = [number for number, _, _, piece in self.spans(b"moses went up\n" * 200) if piece == b"moses"]
        self.assertEqual(numbers, list(range(1, 201)))

    def test_a_line_of_many_windows(self):
        found = list(self.spans(b"and moses said unto the people fear not " * 2000))
        self.assertGreater(sum(piece.count(b"moses") for _, _, _, piece in found), 1900)

    def test_wrong(self):
        self.careless("ner_spans", "MODEL")
        self.assertEqual(self.run_one("ner_spans", BERT), (b"", b""))
        _, error = self.run_one("ner_spans", T5, text=b"x", status=1)
        self.assertIn(b"TF_STATUS_UNSUPPORTED", error)
        self.full("ner_spans", BERT, text=b"moses said\n")


class transduce(Programs):
    def test_line_by_line(self):
        out, _ = self.run_one("transduce", T5, text="\n".join(WORDS).encode())  # the last line has no end
        self.assertEqual(out.decode().splitlines(), list(WORDS.values()))

    def test_empty_input_and_lines(self):
        self.assertEqual(self.run_one("transduce", T5), (b"", b""))
        self.assertEqual(self.run_one("transduce", T5, text=b"\n\nknight\n\n")[0], b"\n\nN AY1 T\n\n")

    def test_more_lines_than_fit_at_once(self):
        out, _ = self.run_one("transduce", T5, text="".join(f"{word}\n" for word in WORDS).encode() * 60)
        self.assertEqual(out.decode().splitlines(), list(WORDS.values()) * 60)

    def test_beams(self):
        out, _ = self.run_one("transduce", T5, "4", text=b"harbour\n" * 40)
        self.assertEqual(out, b"HH AA1 R B ER0\n" * 40)
        out, error = self.run_one("transduce", T5, "0", text=b"harbour\n", status=1)
        self.assertEqual(out, b"\n")
        self.assertIn(b"num_beams", error)

    def test_a_line_that_fails_leaves_the_others(self):
        out, error = self.run_one("transduce", T5, text=b"knight\n\xff\nqueue\n" + b"a" * 1000000 + b"\nrhythm\n", status=1)
        self.assertEqual(out, b"N AY1 T\n\nK W UW1\n\nR IH1 TH AH0 M\n")
        self.assertRegex(error, rb"^line 2: .*UTF-8")
        self.assertRegex(error, rb"(?m)^line 4: .*1000002 tokens")

    def test_a_line_is_answered_when_it_comes(self):
        with subprocess.Popen([FOLDER / "transduce", T5], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            late = threading.Timer(120, program.kill)
            late.start()
            self.addCleanup(late.cancel)
            for half, rest, wanted in ((b"kni", b"ght\n", b"N AY1 T\n"), (b"", b"queue\n", b"K W UW1\n")):
                for piece in (half, rest):
                    program.stdin.write(piece)
                    program.stdin.flush()
                self.assertEqual(program.stdout.readline(), wanted)
            program.stdin.close()
            self.assertEqual(program.wait(timeout=60), 0)

    def test_wrong(self):
        self.careless("transduce", "MODEL")
        self.full("transduce", T5, text=b"knight\n")


class stream(Programs):
    def test_text(self):
        out, error = self.run_one("stream", GPT2, "In the morning", "30")
        self.assertRegex(out, rb"^In the morning.+ [a-z]+ [a-z]+")
        self.assertRegex(error, rb"^([1-9]|[12][0-9]|30) tokens in [0-9.]+ s, [0-9]+ a second\n$")
        again, _ = self.run_one("stream", GPT2, "In the morning", "30")
        self.assertEqual(out, again)

    def test_interrupt(self):
        """After the first bytes, well before the end; a machine that is busy may miss it."""
        whole, error = self.run_one("stream", GPT2, "And", "250")
        tokens = int(error.split()[0])
        for attempt in range(5):
            with subprocess.Popen([FOLDER / "stream", GPT2, "And", "250"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
                first = os.read(program.stdout.fileno(), 1)
                program.send_signal(signal.SIGINT)
                rest, error = program.communicate(timeout=60)
            if program.returncode == 130:
                break
        self.assertEqual(program.returncode, 130, error)
        self.assertTrue(whole.startswith((first + rest).rstrip(b"\n")))
        self.assertRegex(error, rb"^[0-9]+ tokens in .*, cancelled\n$")
        self.assertLess(int(error.split()[0]), tokens)

    def test_wrong(self):
        self.careless("stream", "MODEL", "x")
        _, error = self.run_one("stream", GPT2, "x", "0", status=1)
        self.assertIn(b"max_new_tokens", error)
        self.full("stream", GPT2, "x", "5")


class threads(Programs):
    def test_all_are_told_the_same(self):
        out, error = self.run_one("threads", T5, "9", *WORDS)
        lines = out.decode().splitlines()
        self.assertEqual(lines[:5], [f"{word}: {sounds}" for word, sounds in WORDS.items()])
        rows = [line.split() for line in lines[6:]]
        self.assertEqual([(int(row[0]), int(row[1])) for row in rows], [(n, 20 * n) for n in (1, 2, 4, 8, 9)])
        self.assertLess(float(rows[-1][3]), 0.8 * float(rows[0][3]))  # passes over the weights are shared
        self.assertEqual(error, b"")

    def test_more_than_the_session_has_room_for(self):
        out, _ = self.run_one("threads", T5, "256", "knight")
        self.assertEqual(out.decode().splitlines()[-1].split()[:2], ["256", "1024"])

    def test_wrong(self):
        self.careless("threads", "MODEL", "2", "x")
        for number in ("0", "257", "x", "-1"):
            self.run_one("threads", T5, number, "x", status=2)
        _, error = self.run_one("threads", BERT, "2", "x", status=1)
        self.assertIn(b"TF_STATUS_UNSUPPORTED", error)


class host_hooks(Programs):
    def test_three_runs(self):
        for model in (BERT, GPT2, T5):
            out, _ = self.run_one("host_hooks", model)
            heads = re.findall(r"^([a-z][a-z -]*?) +loaded +(\d+) %, at most +([\d.]+) MB held, (\d+) bytes now$", out.decode(), re.M)
            self.assertEqual([(title, held) for title, _, _, held in heads], [("whole", "0"), ("half memory", "0"), ("half-way", "0")])
            self.assertEqual(int(heads[0][1]), 100)
            self.assertTrue(50 <= int(heads[2][1]) < 100)
            self.assertLessEqual(float(heads[1][2]), float(heads[0][2]) / 2 + 0.1)
            self.assertEqual(re.findall(r"TF_STATUS_\w+", out.decode()), ["TF_STATUS_OK", "TF_STATUS_NOMEM", "TF_STATUS_CANCELLED"])

    def test_wrong(self):
        _, error = self.run_one("host_hooks", status=2)
        self.assertIn(b"usage: host_hooks", error)
        out, _ = self.run_one("host_hooks", "/no/such/model", status=1)
        self.assertRegex(out, rb"(?s)0 bytes now.*TF_STATUS_NOT_FOUND.*/no/such/model")


class tokenize(Programs):
    def test_tokens(self):
        out, _ = self.run_one("tokenize", BERT, "and he said")
        self.assertIn(b"  text: and he said\n", out)
        self.assertEqual([row.split()[1:] for row in out.splitlines()][1:3], [[b"and", b"and"], [b"he", b"he"]])
        lines, _ = self.run_one("tokenize", BERT, text=b"and he said\nand he said\n")
        self.assertEqual(lines, out + out)
        long, _ = self.run_one("tokenize", BERT, text="\u00e9t\u00e9 ".encode() * 40000)  # one line, whose characters are not cut
        self.assertEqual(long.count(b"  text: "), 1)
        nul, _ = self.run_one("tokenize", GPT2, text=b"and\0he\n")
        self.assertIn(b"  text: and\0he\n", nul)

    def test_wrong(self):
        self.careless("tokenize", "MODEL", "x")
        self.assertEqual(self.run_one("tokenize", BERT), (b"", b""))
        _, error = self.run_one("tokenize", BERT, b"\xff", status=1)
        self.assertIn(b"UTF-8", error)
        self.full("tokenize", BERT, "x")
        folder = os.open("/", os.O_RDONLY)
        done = subprocess.run([FOLDER / "tokenize", BERT], stdin=folder, capture_output=True, timeout=300)
        os.close(folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"directory", done.stderr)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # "auto" is the CPU on every machine
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
