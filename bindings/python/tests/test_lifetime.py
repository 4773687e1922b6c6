"""Closing, forking, threads, Ctrl-C and the interpreter's end: exceptions where a call makes no sense, never a crash or a leak."""

import asyncio
import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import tfinfer
from conftest import MODELS, opened
from tfinfer import errors
from tfinfer._callbacks import Callbacks
from tfinfer._library import Handle

GPT2 = str(MODELS / "gpt2-prose")
ENDLESS = dict(max_new_tokens=200, eos_token_id=[], num_beams=64)  # some seconds
TWO = ENDLESS | dict(num_beams=32)


@pytest.fixture(scope="module")
def roomy():
    """A model whose room one such request takes most of."""
    with opened(GPT2, kv_tokens=64 * 257) as model:
        yield model


def opens(number, status=0):
    """A C function that opens a handle."""

    def open_call(out):
        out._obj.value = number
        return status

    return open_call


def test_a_handle_closes_when_the_last_call_has_left():
    closed = []
    parent = Handle(opens(1), lambda pointer: closed.append(pointer.value))
    child = Handle(opens(2), lambda pointer: closed.append(pointer.value), parent)
    with child, parent:
        child.close()
        parent.close()
        assert closed == []
        with pytest.raises(errors.ClosedError), child:
            pass
    assert closed == [2, 1]
    child.close()
    del child, parent
    assert closed == [2, 1]
    Handle(opens(3), lambda pointer: closed.append(pointer.value))
    assert closed == [2, 1, 3]


def test_a_handle_that_does_not_open_lets_its_parent_go():
    closed = []
    parent = Handle(opens(1), lambda pointer: closed.append(pointer.value))

    def interrupted(out):
        opens(2)(out)
        raise KeyboardInterrupt

    with pytest.raises(errors.BusyError):
        Handle(opens(None, status=-8), lambda pointer: closed.append(pointer.value), parent)
    with pytest.raises(KeyboardInterrupt):
        Handle(interrupted, lambda pointer: closed.append(pointer.value), parent)
    assert closed == [2]
    parent.close()
    assert closed == [2, 1]


def test_closed():
    with opened(GPT2) as model:
        request = model.stream("I", max_new_tokens=3)
        tokenizer = model.tokenizer
        stream = tokenizer.stream()
    assert len(list(request)) >= 1  # what was under way goes on
    request.close()
    request.close()
    model.close()
    calls = [
        lambda: model.generate("I"),
        lambda: model.stream("I"),
        lambda: model.stats,
        lambda: model.graph(),
        lambda: tokenizer("I"),
        lambda: next(request),
        lambda: request.wait(),
        lambda: request.results(),
        lambda: request.cancel(),
    ]
    for call in calls:
        with pytest.raises(errors.ClosedError):
            call()
    stream.push(5)
    stream.close()
    with pytest.raises(errors.ClosedError):
        stream.push(5)
    assert model.info.family == "gpt2"


def test_closing_while_others_are_inside():
    for _ in range(3):
        model, results, stop = opened(GPT2), [], threading.Event()

        def work(model=model, results=results, stop=stop):
            while not stop.is_set():
                try:
                    results.append(model.generate("I", max_new_tokens=4)[0].text)
                except errors.ClosedError:
                    return

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        model.close()
        stop.set()
        for thread in threads:
            thread.join()
        assert results


def test_threads_share_a_model(gpt2, embedder):
    prompts = [f"{word} and" for word in ("I", "he", "the ship", "Moses", "it", "water")]
    want = [gpt2.generate(p, max_new_tokens=16, do_sample=False)[0].text for p in prompts]
    vectors = embedder.embed(prompts)
    got, wrong = {}, []

    def work(i):
        try:
            for _ in range(3):
                got[i] = gpt2.generate(prompts[i], max_new_tokens=16, do_sample=False)[0].text
                assert np.allclose(embedder.embed(prompts[i]), vectors[i], atol=1e-5)
                assert embedder.tokenizer(prompts[i]).input_ids
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and [got[i] for i in range(len(prompts))] == want


def test_the_gil_is_released(gpt2):
    """A thread inside a call lets Python go on."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (gpt2.generate("I", max_new_tokens=150, eos_token_id=[], num_beams=4), done.set()))
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 10


def test_a_request_belongs_to_one_thread(roomy):
    with roomy.stream("I", **ENDLESS) as request:
        thread = threading.Thread(target=lambda: list(request))
        thread.start()
        time.sleep(0.1)
        with pytest.raises(errors.BusyError):
            next(request)
        request.cancel()
        thread.join()


def test_a_request_is_gone_while_another_thread_calls_back_for_it(gpt2):
    stop = threading.Event()

    def drive():
        while not stop.is_set():
            gpt2.generate("he", max_new_tokens=20)

    thread = threading.Thread(target=drive)
    thread.start()
    for _ in range(100):
        request = gpt2.stream("I", num_beams=2, logits_processor=lambda *_: time.sleep(0.001))
        time.sleep(0.002)
        del request
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def whole_time(roomy):
    """Seconds that TWO take when nobody interrupts them."""
    begin = time.monotonic()
    roomy.generate(["I", "he"], **TWO)
    return time.monotonic() - begin


def interrupt_soon(seconds=0.15):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs in the background are begun without it
    threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.mark.parametrize("processor", [None, lambda sequence, ids, logits: None])
def test_ctrl_c_ends_generate(roomy, whole_time, processor):
    begin = time.monotonic()
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt) as caught:
        roomy.generate(["I", "he"], logits_processor=processor, **TWO)
    assert time.monotonic() - begin < 0.15 + whole_time / 2
    room = roomy.stream("I", **ENDLESS)
    room.close()
    assert caught  # the room is free again, though the frames live


@pytest.mark.parametrize("moments", [(0.05, 0.1, 0.15), ()])
def test_a_call_is_left_when_c_is_done(monkeypatch, moments):
    """However often it is interrupted, and though that happens while its thread begins: what C writes to is freed then."""
    began, ended = [], []

    def work():
        began.append(1)
        time.sleep(0.3)
        ended.append(1)

    def start(thread, begin=threading.Thread.start):
        begin(thread)
        if thread.name == "tfinfer call":
            raise KeyboardInterrupt

    for moment in moments:
        interrupt_soon(moment)
    if not moments:
        monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(1 if moments else 20):
        with pytest.raises(KeyboardInterrupt):
            Callbacks().run(work)
        time.sleep(0.01)
        assert began == ended


def test_ctrl_c_ends_a_long_list(embedder):
    begin = time.monotonic()
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        embedder.embed(["A cat sat on the mat. " * 40] * 300)
    assert time.monotonic() - begin < 10
    assert embedder.embed("a cat").shape == (384,)


def test_a_signal_handlers_exception_comes_out(roomy):
    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(Alarm):
            list(roomy.stream("I", **ENDLESS))
    finally:
        signal.signal(signal.SIGALRM, before)


def in_child(function):
    """The exit status of `function` in a forked child: 0 if it returned."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(60)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_after_fork(gpt2, embedder):
    text, vector = gpt2.generate("I", max_new_tokens=5, do_sample=False)[0].text, embedder.embed("a cat")
    request = gpt2.stream("I", max_new_tokens=5, do_sample=False)

    def child():
        assert gpt2.generate("I", max_new_tokens=5, do_sample=False)[0].text == text
        assert np.array_equal(embedder.embed("a cat"), vector)
        assert request.results()[0].text == text
        with opened(GPT2) as model:
            assert model.generate("I", max_new_tokens=5, do_sample=False)[0].text == text
        embedder.close()
        gc.collect()

    assert in_child(child) == 0
    assert request.results()[0].text == text
    request.close()


@pytest.mark.parametrize("ids", [[10**6], np.array([10**6], np.int32)])
def test_an_exception_that_is_kept_keeps_nothing_open(minilm, ids):
    with opened(minilm) as model, pytest.raises(errors.InvalidError) as kept:
        session = weakref.ref(model._session.open)
        model.embed(ids)
    assert kept and session() is None  # though the frames live


PROGRAMS = {
    "everything stays open": "request = model.stream('I', max_new_tokens=5); next(request); stream = model.tokenizer.stream()",
    "a cycle": "model.me = model; request = model.stream('I'); request.me = request; request.model = model; del model, request",
    "a daemon thread inside": "import threading, time\n"
    "threading.Thread(target=lambda: model.generate('I', max_new_tokens=200, eos_token_id=[], num_beams=16), daemon=True).start()\n"
    "time.sleep(0.2)",
    "a daemon thread inside a callback": "import threading, time\n"
    "wait = lambda *given: time.sleep(0.05)\n"
    "threading.Thread(target=lambda: model.generate('I', max_new_tokens=200, logits_processor=wait), daemon=True).start()\n"
    "time.sleep(0.3)",
    "a callback's closure": "request = model.stream('I', logits_processor=lambda *given: model)\nnext(request)",
    "a call at exit": "import atexit\natexit.register(lambda: model.generate('I', max_new_tokens=2, logits_processor=lambda *given: None))",
    "a call of what is left at the end": "import builtins\nclass Left:\n"
    "    def __init__(self): self.model = model; self.__del__()\n"
    "    def __del__(self): self.model.generate('I', max_new_tokens=2, logits_processor=lambda *given: None)\n"
    "builtins.left = Left()",
    "an exception": "model.stream('I')\nraise SystemExit(0)",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_interpreter_ends_cleanly(name):
    program = f"import tfinfer\nmodel = tfinfer.Model.open({GPT2!r}, device='cpu')\n{PROGRAMS[name]}\n"
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_nothing_leaks(embedder, gpt2):
    def once():
        embedder.embed(["a cat"] * 20)
        embedder.tokenizer(["a cat"] * 20, padding=True, return_tensors="np")
        gpt2.generate(["I", "he"], max_new_tokens=2, logits_processor=lambda *_: None, stop_strings="zz", bad_words_ids=[[5]])
        for bad in (lambda: embedder.embed([5, 10**6]), lambda: gpt2.generate("I", num_beams=65), lambda: embedder.embed("x", out=[])):
            with pytest.raises((errors.InvalidError, TypeError)):
                bad()
        with gpt2.stream("I") as request:
            next(request)
        with tfinfer.Tokenizer.open(GPT2) as tokenizer:
            stream = tokenizer.stream()
            stream.push(5)

    for _ in range(10):
        once()
    gc.collect()
    before, objects = resident(), len(gc.get_objects())
    for _ in range(60):
        once()
    gc.collect()
    assert len(gc.get_objects()) - objects < 300
    assert resident() - before < 6e6


def test_models_are_freed():
    def once():
        opened(GPT2).generate("I", max_new_tokens=1)

    for _ in range(3):
        once()
    before = resident()
    for _ in range(12):
        once()
    assert resident() - before < 60e6  # twelve models' weights are 170e6


def test_async(gpt2, embedder):
    async def everything():
        vectors, texts, ids = await asyncio.gather(
            embedder.embed_async(["a cat", "a dog"]),
            gpt2.generate_async("I", max_new_tokens=5, do_sample=False),
            embedder.encode_async([101, 102]),
        )
        tokens = [token async for token in gpt2.stream_async("I", max_new_tokens=5, do_sample=False)]
        with pytest.raises(errors.InvalidError):
            await embedder.embed_async([10**6])
        return vectors, texts, ids, tokens

    vectors, [text], _, tokens = asyncio.run(everything())
    assert np.allclose(vectors, embedder.embed(["a cat", "a dog"]), atol=1e-5)
    assert "".join(token.text for token in tokens) == text.text


def test_an_async_stream_that_is_left_ends_its_request(gpt2):
    async def leave():
        stream = gpt2.stream_async("I", **ENDLESS | dict(num_beams=1))
        async for _ in stream:
            break
        await stream.aclose()
        return (await gpt2.generate_async("I", max_new_tokens=gpt2.info.max_context_tokens - 20))[0]

    assert asyncio.run(leave()).text


def test_a_cancelled_task_ends_its_call(roomy, whole_time, embedder):
    async def leave(call):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, 0.1)

    async def tokens():
        async for _ in roomy.stream_async("I", **ENDLESS):
            pass

    for call in (roomy.generate_async(["I", "he"], **TWO), tokens(), embedder.embed_async(["A cat sat on the mat. " * 40] * 300)):
        begin = time.monotonic()
        asyncio.run(leave(call))  # which waits for the loop's threads
        assert time.monotonic() - begin < 0.2 + whole_time / 2
