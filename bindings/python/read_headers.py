"""Writes src/tfinfer/_c.py, what ctypes has to know of the C headers: constants, enums, structs, callbacks and functions.

    python read_headers.py            write it
    python read_headers.py --check    exit with 1 if it is not what the headers say

Needs pycparser and a C preprocessor (cc). How C becomes ctypes: a number is the number of its size; an enum is an int32_t; `const char *`
is c_char_p, but c_void_p where a field with its size follows (such text may have NULs in it, or no NUL behind it); a function's pointer to
a struct is POINTER(), which takes the struct itself; every other pointer is c_void_p, which takes byref(), an address and None.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from pycparser import c_ast, c_parser

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parents[1] / "include"
OUTPUT = HERE / "src" / "tfinfer" / "_c.py"

# In place of the system's headers, which a parser of standard C does not read.
SYSTEM_HEADERS = {
    "stddef.h": "#define NULL ((void *)0)\ntypedef unsigned long size_t;\n",
    "stdint.h": "#define INT32_MIN (-2147483647 - 1)\n"
    "typedef int int32_t;\ntypedef unsigned uint32_t;\ntypedef long int64_t;\ntypedef unsigned long uint64_t;\n",
}
NUMBERS = {
    "int32_t": ("C.c_int32", "int"),
    "int64_t": ("C.c_int64", "int"),
    "uint64_t": ("C.c_uint64", "int"),
    "size_t": ("C.c_size_t", "int"),
    "float": ("C.c_float", "float"),
    "double": ("C.c_double", "float"),
    "void": ("None", "None"),
}
HEAD = '''"""Made from include/tfinfer/*.h by read_headers.py, which says how; a test makes it anew and compares. Do not edit."""

import ctypes as C
from typing import Any

'''


def preprocess() -> str:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in SYSTEM_HEADERS.items():
            pathlib.Path(folder, name).write_text(text)
        command = ["cc", "-E", "-P", "-nostdinc", "-U__GNUC__", "-I", folder, "-I", str(INCLUDE), "-"]
        return subprocess.run(command, input="#include <tfinfer/generate.h>\n", capture_output=True, text=True, check=True).stdout


def class_name(c_name: str) -> str:
    """tf_model_options: ModelOptions."""
    return "".join(word.capitalize() for word in c_name.removeprefix("tf_").split("_"))


class Headers:
    """The headers' declarations in their order, as lines of Python."""

    def __init__(self) -> None:
        self.enums: dict[str, dict[str, int]] = {}
        self.callbacks: dict[str, c_ast.FuncDecl] = {}
        self.structs: dict[str, list[c_ast.Decl]] = {}
        self.functions: dict[str, c_ast.FuncDecl] = {}
        self.numbers: dict[str, int] = {}  # of enums without a name
        for node in c_parser.CParser().parse(preprocess()).ext:
            if isinstance(node, c_ast.Typedef):
                self.add_type(node.name, node.type)
            elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl) and "inline" not in node.funcspec:
                self.functions[node.name] = node.type
            elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.Enum):
                self.numbers.update((entry.name, constant(entry.value)) for entry in node.type.values.enumerators)

    def add_type(self, name: str, declared: c_ast.Node) -> None:
        if isinstance(declared, c_ast.PtrDecl) and isinstance(declared.type, c_ast.FuncDecl):
            self.callbacks[name] = declared.type
        elif isinstance(declared, c_ast.TypeDecl) and isinstance(declared.type, c_ast.Enum):
            self.enums[name] = {entry.name: constant(entry.value) for entry in declared.type.values.enumerators}
        elif isinstance(declared, c_ast.TypeDecl) and isinstance(declared.type, c_ast.Struct) and declared.type.decls:
            self.structs[name] = declared.type.decls

    def kind(self, declared: c_ast.Node) -> tuple[str, str]:
        """The ctypes type of a declaration, and what Python sees in a struct's field of that type."""
        if isinstance(declared, c_ast.PtrDecl):
            if isinstance(declared.type, c_ast.FuncDecl):
                return self.callback(declared.type), "Any"
            text = isinstance(declared.type, c_ast.TypeDecl) and declared.type.type.names == ["char"] and declared.type.quals == ["const"]
            return ("C.c_char_p", "bytes | None") if text else ("C.c_void_p", "int | None")
        if isinstance(declared, c_ast.ArrayDecl):
            return f"{self.kind(declared.type)[0]} * {self.count(declared.dim)}", "Any"
        name = declared.type.names[0]
        if name in NUMBERS:
            return NUMBERS[name]
        if name in self.enums:
            return NUMBERS["int32_t"]
        if name in self.callbacks:
            return class_name(name), "Any"
        return class_name(name), class_name(name)

    def count(self, size: c_ast.Node) -> int:
        return self.numbers[size.name] if isinstance(size, c_ast.ID) else constant(size)

    def arguments(self, function: c_ast.FuncDecl) -> list[str]:
        kinds = [self.argument(parameter.type) for parameter in (function.args.params if function.args else [])]
        return [] if kinds == ["None"] else kinds

    def argument(self, declared: c_ast.Node) -> str:
        pointed = declared.type if isinstance(declared, c_ast.PtrDecl) else None
        if isinstance(pointed, c_ast.TypeDecl) and pointed.type.names[0] in self.structs:
            return f"C.POINTER({class_name(pointed.type.names[0])})"
        return self.kind(declared)[0]

    def callback(self, function: c_ast.FuncDecl) -> str:
        return f"C.CFUNCTYPE({', '.join([self.result(function), *self.arguments(function)])})"

    def result(self, function: c_ast.FuncDecl) -> str:
        return self.kind(function.type)[0]

    def struct_lines(self, name: str) -> Iterator[str]:
        fields = []
        for field, following in zip(self.structs[name], [*self.structs[name][1:], None]):
            kind, seen = self.kind(field.type)
            if kind == "C.c_char_p" and following is not None and following.name == field.name + "_bytes":
                kind, seen = "C.c_void_p", "int | None"
            fields.append((field.name, kind, seen))
        yield f"class {class_name(name)}(C.Structure):"
        for field_name, _, seen in fields:
            yield f"    {field_name}: {seen}"
        yield "    _fields_ = ["
        for field_name, kind, _ in fields:
            yield f'        ("{field_name}", {kind}),'
        yield "    ]"

    def lines(self) -> Iterator[str]:
        text = (INCLUDE / "tfinfer" / "base.h").read_text()
        version = re.findall(r"#define TFINFER_VERSION_\w+ (\d+)", text)
        yield f'VERSION = "{".".join(version)}"  # of the headers'
        yield "UNSET = -(2**31)  # in a field of integers; floats have NaN, pointers NULL"
        for name, entries in self.enums.items():
            yield ""
            yield f"{name.removeprefix('tf_').upper()} = {{"
            prefix = os.path.commonprefix(list(entries)).rpartition("_")[0] + "_"
            for entry, value in entries.items():
                yield f'    "{entry.removeprefix(prefix).lower()}": {value},'
            yield "}"
        yield ""
        for name, function in self.callbacks.items():
            yield f"{class_name(name)} = {self.callback(function)}"
        for name in self.structs:
            yield ""
            yield ""
            yield from self.struct_lines(name)
        yield ""
        yield ""
        yield "FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {  # result, arguments"
        for name, function in self.functions.items():
            yield f'    "{name}": ({self.result(function)}, [{", ".join(self.arguments(function))}]),'
        yield "}"
        yield ""
        yield "STRUCTS: dict[str, type[C.Structure]] = {"
        for name in self.structs:
            yield f'    "{name}": {class_name(name)},'
        yield "}"


def constant(node: c_ast.Node) -> int:
    if isinstance(node, c_ast.UnaryOp):
        return -constant(node.expr)
    return int(node.value)


def module() -> str:
    return HEAD + "\n".join(Headers().lines()) + "\n"


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        return 0 if OUTPUT.read_text() == module() else 1
    OUTPUT.write_text(module())
    return 0


if __name__ == "__main__":
    sys.exit(main())
