"""Command-line options made from the fields of options classes, so that each is written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import typer


def with_options_of(
    sections: Mapping[str, type], defaults: Mapping[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of some dataclasses.

    The command gets those that the user gave as one dictionary ``options``.

    Args:
        sections: The dataclasses by the headings under which help shows their fields.
        defaults: Default values to show, where they are not those of the fields.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]
        added = {
            field.name: _parameter(field, hint, heading, defaults)
            for heading, section in sections.items()
            for field, hint in _fields(section)
        }

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            options = {name: values.pop(name) for name in added}
            given = {name: value for name, value in options.items() if _is_given(context, name)}
            command(**values, options=given)

        kind = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter("context", kind, annotation=typer.Context)
        parameters = [p.replace(kind=kind) for p in (context, *own.values(), *added.values())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _fields(section: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(section)
    return [(field, hints[field.name]) for field in dataclasses.fields(section)]


def _parameter(
    field: dataclasses.Field[Any], hint: Any, heading: str, defaults: Mapping[str, Any]
) -> inspect.Parameter:
    plain = _plain(hint)
    default = defaults.get(field.name, field.default)
    choices = field.metadata["choices"]
    name = field.name.replace("_", "-")
    option = typer.Option(
        f"--{name}/--no-{name}" if hint is bool else f"--{name}",
        help=field.metadata["help"],
        rich_help_panel=heading,
    )
    kind: Any = Literal[choices] if choices else plain
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _plain(hint: Any) -> Any:
    """The first type of a union, which is the one that a command line can give."""
    return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
