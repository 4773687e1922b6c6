"""_c.py against the headers: made anew it is the same, and a C program agrees on every size, offset and _init function."""

import ctypes
import pathlib
import subprocess
import sys

import tfinfer
from tfinfer import _c, errors, options
from tfinfer._library import unset
from tfinfer.records import ModelInfo, Plan, Stats, TokenizerInfo

HERE = pathlib.Path(__file__).resolve().parents[1]
INCLUDE = HERE.parents[1] / "include"


def c_output(tmp_path, lines):
    source = tmp_path / "program.c"
    source.write_text("#include <stdio.h>\n#include <tfinfer/generate.h>\nint main(void)\n{\n" + "\n".join(lines) + "\n}\n")
    subprocess.run(["cc", "-I", str(INCLUDE), "-o", str(tmp_path / "program"), str(source)], check=True)
    return subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True).stdout.splitlines()


def test_made_anew_it_is_the_same():
    assert subprocess.run([sys.executable, str(HERE / "read_headers.py"), "--check"]).returncode == 0


def test_sizes_and_offsets(tmp_path):
    wanted, lines = [], []
    for name, struct in _c.STRUCTS.items():
        wanted.append(f"{name} {ctypes.sizeof(struct)}")
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in struct._fields_:
            place = getattr(struct, field)
            wanted.append(f"{name}.{field} {place.offset} {place.size}")
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
    assert c_output(tmp_path, lines) == wanted


def test_unset_is_what_init_makes(tmp_path):
    names = [name for name in _c.STRUCTS if name.endswith("_options") or name in ("tf_input", "tf_encode_output")]
    lines = ["unsigned char *byte;"]
    for name in names:
        lines += [f"static {name} {name}_one;", f"{name}_init(&{name}_one);", f"byte = (unsigned char *)&{name}_one;"]
        lines += [f'for (size_t i = 0; i < sizeof({name}); i++) printf("%02x", byte[i]);', 'puts("");']
    assert c_output(tmp_path, lines) == [bytes(unset(_c.STRUCTS[name])).hex() for name in names]


def test_every_exported_function_is_known():
    symbols = (INCLUDE.parent / "tests" / "abi" / "symbols.txt").read_text().split()
    assert set(_c.FUNCTIONS) == {symbol.split("@")[0] for symbol in symbols if symbol.startswith("tf_")}


def test_every_status_has_an_exception():
    assert {"ok", *errors.BY_STATUS} == set(_c.STATUS)
    assert len(set(errors.BY_STATUS.values())) == len(errors.BY_STATUS)
    assert all(issubclass(error, tfinfer.Error) for error in errors.BY_STATUS.values())


def test_records_have_the_fields_of_their_structs():
    for record, struct in ((Plan, _c.Plan), (Stats, _c.SessionStats), (TokenizerInfo, _c.TokenizerInfo)):
        assert list(record._fields) == [name for name, _ in struct._fields_ if name != "struct_size"]
    other = {"struct_size", "label_names", "prompt_names", "prompt_texts"}  # strings, which are in labels and prompts
    assert set(ModelInfo._fields) == {name for name, _ in _c.ModelInfo._fields_} - other


def keywords(options, *others):
    """Of a TypedDict, less those that mean no field of its struct."""
    return set(options.__annotations__) - set(others)


def fields(struct, *others):
    return {name for name, _ in struct._fields_} - {"struct_size", "reserved", *others}


def test_every_option_has_a_keyword():
    inputs = set(options.InputOptions.__annotations__)
    session = ("stream", "max_step_tokens", "max_sequences", "session_memory_budget", "kv_tokens")
    callbacks = ("allocator", "log", "log_user", "progress", "progress_user")
    assert keywords(options.ModelOptions, *session) == fields(_c.ModelOptions, *callbacks)
    assert len(session) == len(fields(_c.SessionOptions))
    assert keywords(options.EmbedOptions, *inputs) == fields(_c.EmbedOptions)
    assert keywords(options.ClassifyOptions, *inputs) == fields(_c.ClassifyOptions)
    assert len(keywords(options.NerOptions, *inputs)) == len(fields(_c.TokenClassifyOptions))
    assert len(keywords(options.AnswerOptions, *inputs)) == len(fields(_c.AnswerOptions))
    assert keywords(options.FillMaskOptions, *inputs) == fields(_c.FillMaskOptions, "target_count")
    counts = {name for name in fields(_c.GenerateOptions) if name.endswith("_count")}
    pairs = {"sequence_bias_values", "decay_factor", "logits_user"}  # each half of what one keyword says
    assert len(keywords(options.GenerateOptions, "embeddings")) == len(fields(_c.GenerateOptions, *counts, *pairs))
    assert fields(_c.TokenizerOptions) == {"mecab_dictionary", "allocator", "log", "log_user"}


def test_versions():
    assert tfinfer.__version__ == _c.VERSION
