"""The package as it is installed, and the files that git tracks."""

import ast
import importlib.metadata
import importlib.resources
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import anaphora

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {
    "typer", "rich", "tokenizers", "tensorboardX", "torch", "matplotlib", "sklearn", "starlette",
    "uvicorn", "prometheus_client", "onnx", "onnxruntime", "mpi4py", "h5py", "keras",
}  # fmt: skip
LARGEST_FILE = 200_000  # bytes
LIVE = {"docs/live/model/model.safetensors": 190_000, "docs/live/writer.html": 300_000}
"""The live model of the site, trained on text in the public domain, and the most bytes it takes."""
# A directory at the root of some machine; a URL's path and ../shared/data are none.
MACHINE_PATH = re.compile(r"(?<![\w.~*}/-])/(?:home|root|Users|work|tmp|private|mnt)/")
DATA_SUFFIXES = {".bin", ".csv", ".gz", ".npy", ".npz", ".parquet", ".pt", ".safetensors", ".zip"}


def test_the_version_is_the_metadata_version():
    try:
        installed = importlib.metadata.version("anaphora")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("anaphora is not installed here, only on the path")
    assert anaphora.__version__ == installed


def test_the_package_is_marked_as_typed():
    assert (importlib.resources.files("anaphora") / "py.typed").is_file()


def arguments_in_stub(statements: list[ast.stmt]) -> dict[str, list[str]]:
    """The functions that a stub declares, with the names of their arguments."""
    return {
        function.name: [a.arg for a in function.args.args if a.arg != "self"]
        for function in statements
        if isinstance(function, ast.FunctionDef)
    }


def arguments_in_module(module) -> dict[str, list[str]]:
    """The functions that a native module has, with the names of their arguments."""
    return {
        name: re.findall(r"(\w+): ", function.__doc__.splitlines()[0])
        for name, function in vars(module).items()
        if hasattr(function, "__nb_signature__")
    }


def test_the_stub_declares_what_the_native_module_has():
    native = pytest.importorskip("anaphora.engine._native", reason="the engine is not built")
    stub = importlib.resources.files("anaphora.engine") / "_native.pyi"
    tree = ast.parse(stub.read_text())
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    assert arguments_in_stub(tree.body) == arguments_in_module(native)
    declared = arguments_in_stub(classes["_Precision"])
    del declared["__getattr__"]  # for elementwise functions, which are checked against NumPy's
    for module in (native.float32, native.float64):
        found = arguments_in_module(module)
        assert {name: found[name] for name in declared} == declared


def test_the_installed_package_holds_no_sources_of_the_engine():
    package = Path(anaphora.__file__).parent
    if package.is_relative_to(ROOT):
        pytest.skip("anaphora runs from the checkout here")
    assert not [*package.glob("**/*.cpp"), *package.glob("**/*.h")]


def parts() -> list[str]:
    """`anaphora` and its direct parts, without the command line and what is an extra itself."""
    without = ("cli", "estimators", "serve", "__main__")
    names = (module.name for module in pkgutil.iter_modules(anaphora.__path__))
    return ["anaphora", *(f"anaphora.{n}" for n in names if n not in without)]


@pytest.mark.parametrize("name", parts())
def test_importing_a_part_imports_neither_command_line_nor_extras(fresh_interpreter, name):
    modules = fresh_interpreter(f"import sys, {name}; print(*sys.modules)").split()
    assert not EXTRAS.intersection(modules)
    assert "anaphora.cli" not in modules


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    """The files that git tracks; those just deleted are omitted."""
    try:
        command = ["git", "ls-files", "-z"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_tracked_file_names_a_path_of_one_machine(tracked_files):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_tracked_file_is_data_or_large(tracked_files):
    found = []
    for path in tracked_files:
        name, size = path.relative_to(ROOT).as_posix(), path.stat().st_size
        if size > LIVE.get(name, LARGEST_FILE) or (
            path.suffix in DATA_SUFFIXES and name not in LIVE
        ):
            found.append(name)
    assert not found, f"data, or larger than {LARGEST_FILE} bytes: {', '.join(found)}"
