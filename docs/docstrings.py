"""What the reference needs to know of our docstrings and of the options that classes inherit."""

import dataclasses
import importlib
import inspect
import re
from typing import Any

import griffe

from anaphora.options import Options

EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(
    r"(```.*?```|``.*?``|`.*?`|^(?: {4})+\S+(?: \S+)* = .*?$)", re.DOTALL | re.MULTILINE
)
SHAPE = re.compile(r"\[[^][\n]*\]")
ATTRIBUTES = re.compile(r"^Attributes:\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
AFTER_ATTRIBUTES = re.compile(r"^(Raises:|>>> |```)|\Z", re.MULTILINE)


def to_markdown(docstring: str) -> str:
    """Fence examples, and set shapes such as [L*D, B, H] in code."""
    fenced = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", docstring)
    parts = CODE.split(fenced)
    parts[::2] = [SHAPE.sub(r"`\g<0>`", part) for part in parts[::2]]
    return re.sub(r": (?=>=? )", r": \\", "".join(parts))  # else a quotation


def descriptions(docstring: str | None) -> dict[str, str]:
    """What the section "Attributes" of a docstring says of each."""
    section = ATTRIBUTES.search(inspect.cleandoc(docstring or ""))
    return {
        name: re.sub(r"\s+", " ", text)
        for name, text in ENTRY.findall(section[1] if section else "")
    }


def with_options(docstring: str, cls: type) -> str:
    """Add the fields that a class of options inherits to the attributes of its docstring."""
    own, inherited = descriptions(docstring), {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= descriptions(base.__doc__)
    entries = "".join(
        f"    {field.name}: {inherited.get(field.name) or field.metadata['help']}\n"
        for field in dataclasses.fields(cls)
        if field.name not in own and (field.name in inherited or field.metadata.get("help"))
    )
    section = ATTRIBUTES.search(docstring)
    if section:
        return (
            docstring[: section.end()].rstrip("\n") + f"\n{entries}\n" + docstring[section.end() :]
        )
    place = AFTER_ATTRIBUTES.search(docstring).start()
    return f"{docstring[:place].rstrip()}\n\nAttributes:\n{entries}\n{docstring[place:]}".rstrip()


def parameters(cls: type) -> griffe.Parameters:
    """The parameters of a class with their defaults, as `help` shows them."""
    return griffe.Parameters(
        griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
        *(
            griffe.Parameter(
                given.name,
                kind=getattr(griffe.ParameterKind, given.kind.name.lower()),
                default=None if given.default is given.empty else repr(given.default),
            )
            for given in inspect.signature(cls).parameters.values()
        ),
    )


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take what was found in the sources."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Show all fields of a named tuple, and of a class of options with their descriptions."""
        if not cls.parent.is_module or not cls.path.startswith("anaphora."):
            return
        try:
            made = getattr(importlib.import_module(cls.parent.path), cls.name, None)
        except ImportError:  # of a peer such as ONNX, which the documentation does not need
            return
        if not inspect.isclass(made):
            return
        has_options = issubclass(made, Options) and "__dataclass_fields__" in vars(made)
        if has_options or hasattr(made, "_fields"):
            init = griffe.Function("__init__", parent=cls, parameters=parameters(made))
            cls.set_member("__init__", init)
        if has_options and cls.docstring is not None:
            cls.docstring.value = with_options(cls.docstring.value, made)
