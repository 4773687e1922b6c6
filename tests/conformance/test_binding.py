"""The binding in tfi.py and tfi_generate.py against the headers: a C program prints each struct's size and each field's offset
and size."""

import ctypes as C
import pathlib
import re
import subprocess

import tfi
import tfi_generate
import tfi_source

INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "include"
STRUCTS = {
    "tf_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): value
    for name, value in (vars(tfi) | vars(tfi_generate) | vars(tfi_source)).items()
    if isinstance(value, type) and issubclass(value, C.Structure) and name not in ("Struct", "Structure", "Model", "Held")
}
TOKENIZER_STRUCTS = {"tf_tokenizer_options", "tf_tokenizer_info", "tf_decode_options", "tf_encoding_arrays"}  # others have them


def headers():
    return "".join((INCLUDE / "tfinfer" / name).read_text() for name in ("base.h", "source.h", "tokenizer.h", "tfinfer.h", "generate.h"))


def test_every_struct_is_bound():
    wanted = set(re.findall(r"typedef struct (tf_\w+) \{", headers()))
    assert wanted - STRUCTS.keys() <= TOKENIZER_STRUCTS, "structs of the headers without a class"


def test_every_field_is_bound():
    """One that is missing where the header's has padding would leave sizes and offsets as they are."""
    code = re.sub(r"/\*.*?\*/", "", headers(), flags=re.S)
    bodies = dict(re.findall(r"typedef struct (tf_\w+) \{(.*?)\} \1;", code, flags=re.S))
    for name in STRUCTS.keys() & bodies.keys() - {"tf_allocator", "tf_source"}:  # the callbacks' arguments look like fields
        assert re.findall(r"(\w+)\s*(?:\[\w+\])?[,;]", bodies[name]) == [field for field, _ in STRUCTS[name]._fields_], name
    assert "tf_generate_options" in bodies


def test_structs_mirror_the_headers(tmp_path):
    wanted, prints = [], []
    for name, struct in STRUCTS.items():
        wanted.append(f"{name} {C.sizeof(struct)}")
        prints.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in struct._fields_:
            place = getattr(struct, field)
            wanted.append(f"{name}.{field} {place.offset} {place.size}")
            prints.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
    source = tmp_path / "structs.c"
    source.write_text("#include <stdio.h>\n#include <tfinfer/generate.h>\nint main(void)\n{\n" + "\n".join(prints) + "\n}\n")
    subprocess.run(["cc", "-I", str(INCLUDE), "-o", str(tmp_path / "structs"), str(source)], check=True)
    printed = subprocess.run([tmp_path / "structs"], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    assert printed == wanted


def test_statuses_and_enums_mirror_the_headers():
    text = headers()
    assert {name: int(value) for name, value in re.findall(r"X\((\w+), (-?\d+), ", text)} == tfi.STATUS
    for prefix in ("DTYPE", "TASK", "ACTIVATION", "AGGREGATION", "FINISH", "EARLY_STOPPING", "SCORES"):
        table = (vars(tfi) | vars(tfi_generate))[prefix]
        found = {name.lower(): int(value) for name, value in re.findall(rf"\bTF_{prefix}_(\w+) = (\d+)", text)}
        assert found == table, prefix


def test_version():
    text = (INCLUDE / "tfinfer/base.h").read_text()
    assert tfi.lib.tf_version().decode() == ".".join(re.findall(r"#define TFINFER_VERSION_\w+ (\d+)", text))
