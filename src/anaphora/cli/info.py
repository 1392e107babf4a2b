"""``anaphora info``: the contents of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora import models
from anaphora.artifact import ModelDirectory
from anaphora.cells import Cell
from anaphora.cli.output import JSON_HELP, Output, reported_errors
from anaphora.interop.signatures import signatures
from anaphora.models.quantization import loaded_weights
from anaphora.training import task_of

_LONG = 80  # characters of an entry that is shown as it is


def info(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A model directory, or an .onnx file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print the contents of a model directory: the model, its data, its training, its results.

    It names the inputs and outputs that the model has as an ONNX file (anaphora export). Of an
    .onnx file it prints those of the file.

    With --json, one line: config.json, and parameters (shapes by name), parameter_count,
    bytes_on_disk, onnx (inputs and outputs by file); of an .onnx file: producer, opset, inputs,
    outputs, metadata.
    """
    output = Output(as_json)
    with reported_errors():
        if directory.suffix.lower() == ".onnx" and not directory.is_dir():
            _show_file(output, directory)
            return
        task = task_of(directory)
        options = task.load_options(directory)  # reports what is wrong with the config, if anything
        home = ModelDirectory.open(directory)
        config, _, weights = home.load()
        in_int8 = config.get("weights") == "int8"
        if in_int8:
            weights = loaded_weights(home.weights, weights)
        parameters = {name: list(array.shape) for name, array in weights.items()}
        count = sum(array.size for array in weights.values())
        size = home.size()
        exported = _exported(directory)
        output.emit(
            {
                **config,
                "parameters": parameters,
                "parameter_count": count,
                "bytes_on_disk": size,
                "onnx": exported,
            }
        )
        if as_json:
            return
        output.say(
            f"{directory}: {_article(config['task'])}, anaphora {config['anaphora']}, "
            f"{size / 1e6:.1f} MB on disk{', weights in 8 bits' * in_int8}\n"
        )
        if isinstance(options.cell, Cell):  # a program, shown as equations
            config["model"]["cell"] = _equations(options.cell)
        for heading in ("model", "data", "training", "sources", "from"):
            if heading in config:
                output.say(f"{heading}\n{_table(config[heading])}")
        output.say(f"parameters ({count:,})\n{_table(parameters)}")
        for kind, values in exported.items():
            output.say(f"ONNX {kind} (anaphora export)\n{_table(values, ordered=True)}")
        results = config.get("results", {})
        if results.get("loss") is not None:
            loss = task.report(options, results)
            output.say(
                f"validation loss {results['loss']:.4f}{', ' if loss else ''}{loss}, at step "
                f"{results['step']:,}{', before it was quantized' * in_int8}"
            )
        else:
            output.say(f"not evaluated; step {results.get('step', 0):,}")
        resumable = "can be resumed" if home.checkpoint.exists() else "has no checkpoint"
        output.say(f"{len(home.read_metrics()):,} records in metrics.jsonl; {resumable}")


def _exported(directory: Path) -> dict[str, dict[str, str]]:
    """The inputs and the outputs of each ONNX file of a model."""
    shown: dict[str, dict[str, str]] = {}
    for function in signatures(models.load(directory)):
        of = f" of the {function.name}" if function.name else ""
        shown[f"inputs{of}"] = {value.name: value.describe() for value in function.inputs}
        shown[f"outputs{of}"] = {value.name: value.describe() for value in function.outputs}
    return shown


def _show_file(output: Output, path: Path) -> None:
    """Print the contents of an ONNX file."""
    from anaphora.interop import onnx  # an extra

    found = onnx.describe(path)
    output.emit(found)
    if output.as_json:
        return
    versions = ", ".join(f"{domain} {version}" for domain, version in found["opset"].items())
    output.say(f"{path}: ONNX, made by {found['producer'] or 'unknown'}, operators {versions}\n")
    for kind in ("inputs", "outputs"):
        output.say(f"{kind}\n{_table(found[kind], ordered=True)}")
    short = {
        key: value if len(value) < _LONG else f"{len(value):,} characters"
        for key, value in found["metadata"].items()
    }
    if short:
        output.say(f"metadata\n{_table(short)}")


def _table(values: Mapping[str, Any], ordered: bool = False) -> str:
    width = max((len(name) for name in values), default=0)
    indent = f"\n{' ' * (width + 4)}"
    items = values.items() if ordered else sorted(values.items())
    rows = ((name, str(value).replace("\n", indent)) for name, value in items)
    return "".join(f"  {name:{width}}  {value}\n" for name, value in rows)


def _equations(cell: Cell) -> str:
    """A custom cell: its parts, and the equations of one step."""
    names = [("gates", cell.gates), ("state", cell.states), ("parameters", cell.parameters)]
    parts = "; ".join(f"{kind} {' '.join(members)}" for kind, members in names if members)
    return "\n".join([f"{cell.name}: {parts}", *(f"  {line}" for line in cell.program.lines())])


def _article(task: str) -> str:
    name = task.replace("_", " ")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
