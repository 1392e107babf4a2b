"""Everything public is documented, and every example in docstrings, README and docs runs."""

import ast
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import math
import os
import pkgutil
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import anaphora
from anaphora import engine
from anaphora.cells import Cell
from anaphora.models import Body, SavedModel
from anaphora.options import Options, option

ROOT = Path(__file__).resolve().parents[1]
LARGEST_PICTURE = 200_000  # bytes
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("**/*.md"))]
EXTRAS = {
    "mpi4py": ("distributed.mpi",),
    "onnx": (
        "interop.onnx",
        "onnx.cells",
        "onnx.export",
        "onnx.graph",
        "onnx.layers",
        "onnx.load",
        "onnx.operations",
        "onnx.operators",
        "operators.arithmetic",
        "operators.layers",
        "operators.registry",
        "operators.shapes",
        "onnx.program",
        "onnx.quantized",
        "onnx.reading",
        "onnx.recurrent",
        "onnx.symbols",
    ),
    "sklearn": ("estimators", "estimators.forecaster", "estimators.sequences"),
    "sacrebleu": ("metrics.translation",),
    "starlette": ("serve",),
    "torch": ("interop.torch", "torch.models", "torch.reading", "torch.traced", "torch.writing"),
}
NEEDED = {
    "from-keras.md": ("h5py", "keras", "torch"),
    "from-pytorch.md": ("torch",),
    "from-onnx.md": ("onnx",),
    "onnx.md": ("onnx", "onnxruntime"),
}
"""What the examples of a page import, besides the test extra."""
LACKING = [
    module
    for extra, modules in EXTRAS.items()
    if not importlib.util.find_spec(extra)
    for module in modules
]
MODULES = [
    "anaphora",
    *(
        module.name
        for module in pkgutil.walk_packages(anaphora.__path__, "anaphora.")
        if not module.name.endswith(("__main__", *LACKING))
    ),
]
SPELLED_OUT = [
    "data", "distributed", "estimators", "generation", "interop", "metrics", "models", "nn", "ops",
    "optim", "plot", "serve", "synthetic", "training",
]  # fmt: skip
"""Modules whose signatures show every argument."""
VARIADIC = {
    "models.ConditionalLanguageModel": "abstract; its subclasses are dataclasses",
    "models.SavedModel": "abstract; its subclasses are dataclasses",
    "nn.Module": "abstract; its subclasses name their arguments",
    "ops.einsum": "any number of operands",
    "nn.Sequential": "any number of modules",
    "optim.Optimizer": "abstract; its subclasses name their options",
    "training.TensorDataset": "any number of Tensors",
}
"""Exports that take any number of arguments, and why."""
SHOWN = [
    "artifact", "cells", "data", "distributed", "engine", "engine.crf", "engine.kernels",
    "engine.recurrence", "engine.updates", "equations", "generation", "interop",
    "interop.signatures", "metrics", "models", "nn", "ops", "optim", "plot", "random", "synthetic",
    "tensor", "tensor.graph", "training",
]  # fmt: skip
"""Modules whose users learn from examples; their exports must have some."""
NATIVE = "anaphora.engine.native"


# Docstrings


def definitions(module) -> Iterator[tuple[str, object]]:
    """The module, and the classes, functions and methods that it defines, with their names.

    `doctest.DocTestFinder` would miss a decorated operation, because the function around it
    belongs to the decorator's module.
    """

    def members(name, holder):
        for key, value in list(vars(holder).items()):
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            function = getattr(function, "func", function)  # of a functools.cached_property
            if key in getattr(holder, "__dataclass_fields__", {}):
                continue  # the default of a field
            if callable(function) and getattr(function, "__module__", None) == module.__name__:
                inherits = isinstance(value, classmethod)  # its docstring, which a function lacks
                yield f"{name}.{key}", getattr(holder, key) if inherits else function
                if inspect.isclass(function):
                    yield from members(f"{name}.{key}", function)

    yield module.__name__, module
    yield from members(module.__name__, module)


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def is_documented(value: object) -> bool:
    """Whether it has a docstring; a method that overrides another may leave that to it."""
    return bool(value.__doc__ if inspect.isclass(value) else inspect.getdoc(value))


def exports(module) -> Iterator[tuple[str, object]]:
    """The classes, functions and cells that a module offers: in `__all__`, or else its own."""
    own = [name for name, value in vars(module).items() if is_own(value, module)]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if is_public(name) and (inspect.isroutine(value) or isinstance(value, type | Cell)):
            yield name, value


def is_own(value: object, module) -> bool:
    """Whether a value was defined in a module, and not imported there."""
    return getattr(value, "__module__", None) == module.__name__


def needs_no_example(value: object) -> bool:
    """Exceptions and protocols are shown where they are used, native functions by their twins."""
    is_protocol = getattr(value, "_is_protocol", False)
    is_exception = inspect.isclass(value) and issubclass(value, Exception)
    return is_protocol or is_exception or value.__module__ == NATIVE


def run_examples(
    source: str, names: dict, name: str, path: str | None = None, line: int = 0
) -> None:
    """Run the ``>>>`` examples in a text, with what `names` holds, and fail on a difference."""
    test = doctest.DocTestParser().get_doctest(source, names, name, path, line)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(
        test, out=report.append, clear_globs=False
    )
    if report:
        pytest.fail("".join(report), pytrace=False)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module):
    missing = [
        name
        for name, value in definitions(importlib.import_module(module))
        if is_public(name) and not is_documented(value)
    ]
    assert not missing, f"without a docstring: {', '.join(missing)}"


@pytest.mark.parametrize("package", SHOWN)
def test_what_a_package_exports_has_an_example(package):
    missing = [
        name
        for name, value in exports(importlib.import_module(f"anaphora.{package}"))
        if ">>>" not in (value.__doc__ or "") and not needs_no_example(value)
    ]
    assert not missing, f"without an example: {', '.join(missing)}"


def arguments(value) -> list[inspect.Parameter]:
    """What a function or a constructor takes."""
    try:
        return list(inspect.signature(value).parameters.values())
    except ValueError:  # a constructor of Python's own
        return []


@pytest.mark.parametrize("package", SPELLED_OUT)
def test_signatures_are_spelled_out(package):
    if package in LACKING:
        pytest.skip("needs an extra")
    variadic = {
        f"{package}.{name}"
        for name, value in exports(importlib.import_module(f"anaphora.{package}"))
        if not getattr(value, "_is_protocol", False)
        for argument in arguments(value)
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    }
    assert variadic == {name for name in VARIADIC if name.split(".")[0] == package}


@pytest.mark.parametrize("kind", sorted(SavedModel.kinds))
def test_models_have_the_options_of_their_bodies_in_their_signatures(kind):
    model = SavedModel.kinds[kind]
    arguments = inspect.signature(model).parameters
    assert set(Body.fields()) < set(arguments) == set(model.fields())
    assert all(arguments[name].kind is inspect.Parameter.KEYWORD_ONLY for name in Body.fields())


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="the engine was not built")
def test_a_native_function_names_its_twin_on_numpy():
    for name, value in exports(engine):
        if value.__module__ == NATIVE:
            twin = re.match(
                r"As `(kernels|crf|ctc|graph|recurrence|updates)\.(\w+)`", value.__doc__
            )
            assert twin, f"{name}: its docstring does not begin as 'As `kernels.NAME`'"
            twin_value = getattr(importlib.import_module(f"anaphora.engine.{twin[1]}"), twin[2])
            assert ">>>" in twin_value.__doc__


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imported = importlib.import_module(module)
    for name, value in definitions(imported):
        run_examples(value.__doc__ or "", dict(vars(imported)), name)


# Pages


class Block(NamedTuple):
    """A fenced code block: what it holds, where, and the line above it."""

    language: str
    source: str
    line: int
    above: str

    @property
    def skipped(self) -> bool:
        """Whether a comment directly above says that, and why, the block is not run."""
        return re.fullmatch(r"<!-- not executed: \S.* -->", self.above) is not None

    @property
    def tolerance(self) -> float:
        """How far the numbers of an output may be off, as a comment directly above says."""
        match = re.fullmatch(r"<!-- numbers within (\d+) % -->", self.above)
        return int(match[1]) / 100 if match else 0.0


def difference(expected: str, output: str, tolerance: float = 0.0) -> str:
    """What is wrong with an output: empty if it is as expected, where ``...`` is any text.

    With a tolerance, numbers may differ by that share; spaces may then differ too.
    """
    if tolerance:
        number = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
        pairs = list(zip(number.findall(expected), number.findall(output), strict=False))
        near = all(math.isclose(float(a), float(b), rel_tol=tolerance) for a, b in pairs)
        same = [" ".join(number.sub("0", text).split()) for text in (expected, output)]
        matches = near and same[0] == same[1]
    else:
        expected = expected if expected != "\n" else ""
        matches = doctest.OutputChecker().check_output(expected, output, doctest.ELLIPSIS)
    return "" if matches else f"expected:\n{expected}\nprinted:\n{output}"


def blocks(page: str) -> list[Block]:
    """The fenced code blocks of a Markdown page, in order."""
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = []
    for match in fence.finditer(page):
        before = page[: match.start()].splitlines()
        above = before[-1] if before else ""
        found.append(Block(match[1], match[2], len(before) + 1, above))
    return found


def pictures(page: Path) -> list[Path]:
    """The pictures that a page shows; in docs/ its own code makes them."""
    shown = re.findall(r"!\[[^]]*\]\(([^):]+)\)", page.read_text(encoding="utf-8"))
    return [page.parent / name for name in shown]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    if pictures(page):
        pytest.importorskip("matplotlib")
    for extra in NEEDED.get(page.name, ()):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    output = None  # of the block before, if it was run
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "text" and output is not None and not block.skipped:
            wrong = difference(block.source, output, block.tolerance)
            assert not wrong, f"{page.name}, the output in line {block.line}: {wrong}"
        output = None
        if block.language not in ("python", "pycon") or block.skipped:
            continue
        if block.source.startswith(">>>"):
            run_examples(block.source, names, page.name, str(page), block.line)
        else:
            tree = ast.increment_lineno(ast.parse(block.source, str(page)), block.line)
            capsys.readouterr()
            exec(compile(tree, str(page), "exec"), names)
            output = capsys.readouterr().out
    for picture in pictures(page) if page != README else []:
        if picture.name.startswith("page-"):  # of the server's page, taken by its test
            taken = (ROOT / "tests/serve/test_page.py").read_text(encoding="utf-8")
            assert f'screenshot("{picture.stem}")' in taken
            assert picture.stat().st_size < LARGEST_PICTURE
            continue
        sampled = tmp_path / picture.name
        assert sampled.exists(), f"no block of {page.name} writes {picture.name}"
        if os.environ.get("ANAPHORA_KEEP_PICTURES"):  # make pictures
            shutil.copy(sampled, picture)
        assert picture.stat().st_size < LARGEST_PICTURE


@pytest.fixture
def docstrings():
    """The extension that prepares docstrings for the reference."""
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", sorted(SavedModel.kinds))
def test_the_reference_of_a_model_describes_every_option(docstrings, kind):
    model = SavedModel.kinds[kind]
    written = docstrings.with_options(inspect.getdoc(model), model)
    described = docstrings.descriptions(written)
    assert set(described) >= set(model.fields())
    assert all(written.count(f"\n    {name}: ") == 1 for name in described)
    assert described["zoneout"].startswith("The fraction of the units that keep their states")
    assert written.count("\nAttributes:\n") == 1
    assert written.index("    zoneout: ") < written.index("Raises:")  # within the section
    defaults = {given.name: given.default for given in docstrings.parameters(model)}
    assert (defaults["cell"], defaults["dropout"]) == ("'lstm'", "0.0")
    if kind == "encoder_decoder":  # which inherits False
        assert defaults["bidirectional"] == "True"


def test_the_reference_describes_options_without_a_section_of_attributes(docstrings):
    @dataclasses.dataclass(kw_only=True)
    class Size(Options):
        """The size.

        Raises:
            ValueError: never.
        """

        units: int = option(3, "Units of a layer.", section="model")

    assert docstrings.with_options(inspect.getdoc(Size), Size) == (
        "The size.\n\nAttributes:\n    units: Units of a layer.\n\nRaises:\n    ValueError: never."
    )


def test_the_reference_has_examples_and_shapes_as_code(docstrings):
    given = (
        "Of [L*D, B, H] and `[T]`.\n\n    y = x[0]\n\nArgs:\n    x: [T, I].\n\n"
        ">>> f([1])\n[2]\n\nEnd."
    )
    expected = (
        "Of `[L*D, B, H]` and `[T]`.\n\n    y = x[0]\n\nArgs:\n    x: `[T, I]`.\n\n"
        "```pycon\n>>> f([1])\n[2]\n```\n\nEnd."
    )
    assert docstrings.to_markdown(given) == expected


def test_continuous_integration_runs_the_test_command_of_the_readme():
    commands = [
        block.source.strip()
        for block in blocks(README.read_text(encoding="utf-8"))
        if block.source.startswith('pip install ".[test]"')
    ]
    assert commands, 'README.md has no block that begins with: pip install ".[test]"'
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands:
        assert command in script


def test_an_output_is_compared_with_what_was_printed():
    assert not difference("loss 1.25\n", "loss 1.25\n")
    assert "printed:\nloss 1.26" in difference("loss 1.25\n", "loss 1.26\n")
    assert not difference("a ... d\n", "a b c d\n")
    assert not difference("loss 1.25, -3e-5\n", "loss 1.26, -3.1e-5\n", tolerance=0.05)
    assert difference("loss 1.25\n", "loss 1.35\n", tolerance=0.05)
    assert difference("loss 1.25\n", "mean 1.25\n", tolerance=0.05)
    assert difference("loss 1.25\n", "loss 1.25 1.25\n", tolerance=0.05)


def test_blocks_are_found_with_their_lines_and_markers():
    page = "# Title\n\n```python\na = 1\n```\n\n<!-- not executed: slow -->\n```sh\nls\n```\n"
    first, second = blocks(page)
    assert first == ("python", "a = 1\n", 3, "")
    assert not first.skipped
    assert second == ("sh", "ls\n", 8, "<!-- not executed: slow -->")
    assert second.skipped
    (output,) = blocks("<!-- numbers within 5 % -->\n```text\n1.2\n```\n")
    assert (output.tolerance, second.tolerance) == (0.05, 0.0)
