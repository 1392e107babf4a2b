"""``anaphora import``: models of others as model directories."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Annotated

import typer

from anaphora import interop
from anaphora.artifact import ModelDirectory
from anaphora.cli.output import JSON_HELP, Output, reported_errors, reported_misuse


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help=f"A file of: {', '.join(interop.READERS)}."),
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new model directory.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="What its outputs are: language-model, tag, classify or regress.",
            show_default="what the file says",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", help="Of a Keras file of weights alone: what model.to_json() returned."
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The token of each id: a line each, or JSON; of a model of ids."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The name of each class, tag or target: a line each, or JSON."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that DIR holds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Make a model directory of a model of Keras or PyTorch, or of an ONNX file.

    It must have the shape of a model here: an embedding or features, recurrent layers of one kind,
    a linear layer. PyTorch's checkpoints and safetensors hold weights alone, so give --task unless
    they are a language model's; the predictions of --task classify and regress are those of the
    last step. A graph of ONNX is compared with the model that it becomes; give --task where it does
    not say what its outputs are. Other modules can be loaded in Python:
    anaphora.interop.keras.load, anaphora.interop.torch.from_torch and anaphora.interop.onnx.load.

    Files of others have no vocabulary: give --vocabulary and --labels, so that the model reads
    texts and names its predictions; without, it takes ids or features, in Python:
    anaphora.load(DIR). The tokens are characters, or words with <eos> for the end of a line; <unk>
    stands for all that are not among them. An ONNX file that anaphora export wrote has the
    vocabulary itself.

    Keras and ONNX need extras: pip install "anaphora[keras]", "anaphora[onnx]"; PyTorch's
    checkpoints need PyTorch, and nothing in them is executed.

    With --json, one line: out, task, parameter_count, warnings.
    """
    output = Output(as_json)
    with reported_errors(), reported_misuse(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = interop.read(file, task, config)
        if vocabulary is not None or labels is not None:
            read = interop.vocabulary.read_names
            names = (None if path is None else read(path) for path in (vocabulary, labels))
            interop.vocabulary.give_codec(model, *names)
        model.save(ModelDirectory.create(directory, overwrite=overwrite), imported=str(file))
        count = sum(parameter.size for parameter in model.parameters())
        said = [str(warning.message) for warning in caught]
        for line in said:
            output.say(f"note: {line}")
        output.emit(
            {"out": str(directory), "task": model.kind, "parameter_count": count, "warnings": said}
        )
        name = f"a {model.kind.replace('_', ' ')} of {count:,} parameters"
        if model.codec is None:
            name += (
                ", which takes ids or features, as it has no vocabulary (see --vocabulary and "
                f"--labels); in Python: anaphora.load({str(directory)!r})"
            )
        output.say(f"wrote {directory}: {name}; see anaphora info {shlex.quote(str(directory))}")
