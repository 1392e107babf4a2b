"""The computation graph of a Tensor, as text for Graphviz."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from anaphora.nn import Module
from anaphora.tensor import Tensor
from anaphora.tensor.graph import Operation, recorded_graph

_TEXT = (".dot", ".gv")
_RENDERED = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Graph:
    """A computation graph.

    Attributes:
        operations: The recorded operations, oldest first.
        dot: The graph in Graphviz's language, DOT.

    >>> print(Graph([], "digraph { a -> b }").dot)
    digraph { a -> b }
    """

    operations: list[Operation]
    dot: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the text (.dot, .gv), or an image rendered by Graphviz (.svg, .png, .pdf).

        Raises:
            ValueError: the suffix is not one of these.
            RuntimeError: the program ``dot`` is not installed, or failed.
            OSError: the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in _TEXT:
            path.write_text(self.dot, encoding="utf-8")
            return path
        if suffix not in _RENDERED:
            raise ValueError(f"{path}: a graph is written as {', '.join((*_TEXT, *_RENDERED))}")
        program = shutil.which("dot")
        if program is None:
            raise RuntimeError(
                f"{path}: rendering a graph needs Graphviz, whose program dot is not on PATH; "
                "install it, or save the text as .dot"
            )
        rendered = subprocess.run(
            [program, f"-T{suffix[1:]}"], input=self.dot.encode(), capture_output=True, check=False
        )
        if rendered.returncode:
            raise RuntimeError(f"{path}: dot failed: {rendered.stderr.decode(errors='replace')}")
        path.write_bytes(rendered.stdout)
        return path

    def _repr_svg_(self) -> str | None:  # for notebooks
        program = shutil.which("dot")
        if program is None:
            return None
        done = subprocess.run(
            [program, "-Tsvg"], input=self.dot.encode(), capture_output=True, check=True
        )
        return done.stdout.decode()


def graph(tensor: Tensor, module: Module | None = None) -> Graph:
    """The graph that backward traverses: operations, their inputs, and shapes.

    Boxes are leaf Tensors (with the names of parameters), ellipses are operations; arrows between
    operations are labeled with shapes.

    Args:
        tensor: The result, such as a loss.
        module: The module whose parameter names are shown.

    Raises:
        ValueError: the Tensor has no graph.
        RuntimeError: backward has freed it.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> print(graph((x * x).sum()).dot)
    digraph {
      node [fontname="sans-serif" fontsize=11]
      edge [fontname="sans-serif" fontsize=9 color="gray40"]
      o0 [label="multiply"]
      t0 [label="[2]" shape=box style=filled fillcolor="gray92"]
      t0 -> o0
      t0 -> o0
      o1 [label="sum"]
      o0 -> o1 [label="[2]"]
      result [label="result []" shape=box style=filled fillcolor="lightblue"]
      o1 -> result
    }
    """
    operations = recorded_graph(tensor)
    if not operations:
        raise ValueError(
            "graph: no operation was recorded for this Tensor; it was not computed from anything "
            "with requires_grad=True, or under no_grad"
        )
    names = {} if module is None else {id(p): name for name, p in module.named_parameters()}
    leaves: dict[int, str] = {}
    lines = [
        'node [fontname="sans-serif" fontsize=11]',
        'edge [fontname="sans-serif" fontsize=9 color="gray40"]',
    ]
    for number, operation in enumerate(operations):
        lines.append(f"o{number} [label={_quoted(operation.name.strip('_'))}]")
        for source, shape in operation.inputs:
            if isinstance(source, int):
                lines.append(f"o{source} -> o{number} [label={_quoted(str(list(shape)))}]")
                continue
            if id(source) not in leaves:
                leaves[id(source)] = f"t{len(leaves)}"
                label = f"{names.get(id(source), '')} {list(source.shape)}".strip()
                lines.append(_box(leaves[id(source)], label, "gray92"))
            lines.append(f"{leaves[id(source)]} -> o{number}")
    lines.append(_box("result", f"result {list(tensor.shape)}", "lightblue"))
    lines.append(f"o{len(operations) - 1} -> result")
    text = "\n".join(f"  {line}" for line in lines)
    return Graph(operations, f"digraph {{\n{text}\n}}")


def _box(name: str, label: str, color: str) -> str:
    return f'{name} [label={_quoted(label)} shape=box style=filled fillcolor="{color}"]'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
