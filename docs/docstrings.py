"""What the reference needs to know of our docstrings: examples and shapes are code."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(
    r"(```.*?```|``.*?``|`.*?`|^(?: {4})+\S+(?: \S+)* = .*?$)", re.DOTALL | re.MULTILINE
)
SHAPE = re.compile(r"\[[^][\n]*\]")


def to_markdown(docstring: str) -> str:
    """Fence examples, and set shapes such as [L*D, B, H] in code."""
    fenced = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", docstring)
    parts = CODE.split(fenced)
    parts[::2] = [SHAPE.sub(r"`\g<0>`", part) for part in parts[::2]]
    return re.sub(r": (?=>=? )", r": \\", "".join(parts))  # else a quotation


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take what was found in the sources."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
