"""Command-line options made from the fields of options classes, so that each is defined once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import typer

from anaphora.training import TASKS, TaskOptions

OPTIONS = {name: task.options for name, task in TASKS.items()}
"""The options classes of the tasks, by name."""

SECTIONS = ("data", "model", "training", "prediction", "evaluation")
"""The sections of options, in the order of the help."""


def with_options_of(
    tasks: Mapping[str, type[TaskOptions]],
    select: Callable[[Mapping[str, Any]], bool],
    show_default: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each selected field of the options of some tasks.

    Fields with the same name are one option; its help names the tasks that have it, unless all do,
    and their defaults. The command receives the options that the user gave as the dictionary
    ``options``.

    Args:
        tasks: The options classes, by the names of the tasks.
        select: Whether to select a field, given its metadata.
        show_default: Whether to show the defaults, which are those of training.
    """
    fields = _fields(tasks, select)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]
        added = {
            name: _parameter(heading, of_tasks, len(tasks), show_default)
            for heading, by_name in fields.items()
            for name, of_tasks in by_name.items()
        }
        element_types = {
            name: typing.get_args(hint)[0]
            for by_name in fields.values()
            for name, of_tasks in by_name.items()
            if _is_list(hint := _plain(_hint(of_tasks)))
        }

        @functools.wraps(command)
        def run(typer_context: typer.Context, **values: Any) -> None:
            options = {name: values.pop(name) for name in added}
            given = {
                name: value for name, value in options.items() if _is_given(typer_context, name)
            }
            for name in given.keys() & element_types.keys():
                given[name] = _elements(name, element_types[name], given[name])
            command(**values, options=given)

        kind = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter("typer_context", kind, annotation=typer.Context)
        parameters = [p.replace(kind=kind) for p in (context, *own.values(), *added.values())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.common_options = _common(fields)  # type: ignore[attr-defined]
        return run

    return decorate


def options_of(
    task: str, given: Mapping[str, Any], tasks: Mapping[str, type[TaskOptions]]
) -> dict[str, Any]:
    """The given options with the types of a task: a list, or its only element.

    Raises:
        ValueError: an option is not for the task, or one that is not a list was repeated.
    """
    hints = tasks[task].types()
    found = {}
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name not in tasks[task].fields():
            others = ", ".join(other for other in tasks if name in tasks[other].fields())
            raise ValueError(f"{option} is not for the task {task}, only for {others}; omit it")
        if isinstance(value, tuple) and not _is_list(_plain(hints[name])):
            if len(value) != 1:
                raise ValueError(
                    f"{option} was given {len(value)} times; the task {task} takes one"
                )
            (value,) = value
        found[name] = value
    return found


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


@dataclasses.dataclass(frozen=True)
class _Field:
    """An option of one task."""

    task: str
    field: dataclasses.Field[Any]
    hint: Any
    default: Any


def _fields(
    tasks: Mapping[str, type[TaskOptions]], select: Callable[[Mapping[str, Any]], bool]
) -> dict[str, dict[str, list[_Field]]]:
    """The selected fields of all tasks, by section and name."""
    found: dict[str, dict[str, list[_Field]]] = {}
    for task, options in tasks.items():
        hints = options.types()
        for name, field in options.fields().items():
            if select(field.metadata):
                of_name = found.setdefault(field.metadata["section"], {}).setdefault(name, [])
                of_name.append(_Field(task, field, hints[name], options.default(name)))
    return {section: found[section] for section in SECTIONS if section in found}


def _common(fields: Mapping[str, Mapping[str, list[_Field]]]) -> frozenset[str]:
    """The names of the options that a task marks as common."""
    by_name = (item for names in fields.values() for item in names.items())
    return frozenset(
        name for name, of_tasks in by_name if any(one.field.metadata["common"] for one in of_tasks)
    )


def _parameter(
    section: str, of_tasks: list[_Field], all_tasks: int, show_default: bool
) -> inspect.Parameter:
    field, hint = of_tasks[0].field, _hint(of_tasks)
    choices = tuple(dict.fromkeys(c for one in of_tasks for c in one.field.metadata["choices"]))
    name = field.name.replace("_", "-")
    help = field.metadata["help"]
    if len(of_tasks) < all_tasks:
        help = f"{', '.join(one.task for one in of_tasks)}: {help}"
    kind: Any = Literal[choices] if choices else _plain(hint)
    if is_list := _is_list(kind):
        kind = list[str]
        help += " May be repeated." if str in typing.get_args(_plain(hint)) else " As 1,2,3."
    if choices:
        help = f"{help} One of {', '.join(choices)}."
    by_default: dict[Any, list[str]] = {}
    for one in of_tasks:
        by_default.setdefault(None if one.default == () else one.default, []).append(one.task)
    default: Any = of_tasks[0].default
    shown: bool | str = True
    if len(by_default) > 1:
        (first, _), *others = by_default.items()
        more = (f"; {', '.join(its_tasks)} {_shown(other, name)}" for other, its_tasks in others)
        default, shown = None, _shown(first, name) + "".join(more)
    elif is_list:
        default, shown = None, _shown(default, name) if default else False
    if not show_default and section not in ("prediction", "evaluation"):
        default, shown = None, False
    option = typer.Option(
        f"--{name}/--no-{name}" if hint is bool else f"--{name}",
        help=help,
        metavar="NAME" if choices else None,
        rich_help_panel=section.capitalize(),
        show_default=shown,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _shown(default: Any, name: str) -> str:
    if isinstance(default, bool):
        return name if default else f"no-{name}"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default is None else str(default)


def _plain(hint: Any) -> Any:
    """The first type of a union, the one that a command line can give."""
    return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def _hint(of_tasks: list[_Field]) -> Any:
    """The type that the command line accepts: a list, if it is one for any task."""
    hints = [one.hint for one in of_tasks]
    return next((hint for hint in hints if _is_list(_plain(hint))), hints[0])


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def _elements(name: str, kind: type, given: list[str]) -> tuple[Any, ...]:
    """The elements of a list option; numbers may be separated by commas.

    Raises:
        BadParameter: an element has the wrong type.
    """
    if kind is str:
        return tuple(given)  # texts may contain commas
    try:
        return tuple(kind(part) for text in given for part in text.split(","))
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        expected = "integers" if kind is int else "numbers"
        raise typer.BadParameter(
            f"{','.join(given)!r:.80} is not a list of {expected} with commas, such as 1,2,3",
            param_hint=f"'{option}'",
        ) from None
