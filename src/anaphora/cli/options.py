"""Command-line options made from the fields of options classes, so that each is written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import typer

from anaphora.training import TASKS, TaskOptions

OPTIONS = {name: task.options for name, task in TASKS.items()}
"""The options classes of the tasks, by name."""

SECTIONS = ("data", "model", "training", "prediction")
"""The sections of options, in the order of the help."""


def with_options_of(
    tasks: Mapping[str, type[TaskOptions]],
    select: Callable[[Mapping[str, Any]], bool],
    show_default: str | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for fields of the options of some tasks.

    Fields of one name are one option; its help says for which tasks it is, unless it is for all,
    and their defaults. The command gets those that the user gave as one dictionary ``options``.

    Args:
        tasks: The options classes by the names of the tasks.
        select: Which fields, by their metadata.
        show_default: What is shown as the default, where other than the option's own.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]
        added = {
            name: _parameter(heading, of_tasks, len(tasks), show_default)
            for heading, by_name in _fields(tasks, select).items()
            for name, of_tasks in by_name.items()
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
        run.common_options = _common(tasks, select)  # type: ignore[attr-defined]
        return run

    return decorate


def refuse_options_of_others(
    options: Iterable[str], task: str, tasks: Mapping[str, type[TaskOptions]]
) -> None:
    """Refuse options that are not for the task.

    Raises:
        ValueError: there are some.
    """
    for name in options:
        if name not in tasks[task].fields():
            others = ", ".join(other for other in tasks if name in tasks[other].fields())
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is not for the task {task}, but for {others}; omit it")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


@dataclasses.dataclass(frozen=True)
class _Field:
    """An option as one task has it."""

    task: str
    field: dataclasses.Field[Any]
    hint: Any
    default: Any


def _fields(
    tasks: Mapping[str, type[TaskOptions]], select: Callable[[Mapping[str, Any]], bool]
) -> dict[str, dict[str, list[_Field]]]:
    """By section and name, the selected fields of all tasks."""
    found: dict[str, dict[str, list[_Field]]] = {}
    for task, options in tasks.items():
        hints = typing.get_type_hints(options)
        for name, field in options.fields().items():
            if select(field.metadata):
                of_name = found.setdefault(field.metadata["section"], {}).setdefault(name, [])
                of_name.append(_Field(task, field, hints[name], options.default(name)))
    return {section: found[section] for section in SECTIONS if section in found}


def _common(
    tasks: Mapping[str, type[TaskOptions]], select: Callable[[Mapping[str, Any]], bool]
) -> frozenset[str]:
    """The names of the options that a task marks as common."""
    by_name = (item for names in _fields(tasks, select).values() for item in names.items())
    return frozenset(
        name for name, of_tasks in by_name if any(one.field.metadata["common"] for one in of_tasks)
    )


def _parameter(
    section: str, of_tasks: list[_Field], all_tasks: int, show_default: str | None
) -> inspect.Parameter:
    field, hint = of_tasks[0].field, of_tasks[0].hint
    choices = tuple(dict.fromkeys(c for one in of_tasks for c in one.field.metadata["choices"]))
    name = field.name.replace("_", "-")
    help = field.metadata["help"]
    if len(of_tasks) < all_tasks:
        help = f"{', '.join(one.task for one in of_tasks)}: {help}"
    if choices:
        help = f"{help} One of {', '.join(choices)}."
    by_default: dict[Any, list[str]] = {}
    for one in of_tasks:
        by_default.setdefault(one.default, []).append(one.task)
    default: Any = of_tasks[0].default
    shown: bool | str = True
    if len(by_default) > 1:
        (first, _), *others = by_default.items()
        more = (f"; {', '.join(its_tasks)} {_shown(other, name)}" for other, its_tasks in others)
        default, shown = None, _shown(first, name) + "".join(more)
    if show_default is not None and section != "prediction":
        default, shown = None, show_default
    option = typer.Option(
        f"--{name}/--no-{name}" if hint is bool else f"--{name}",
        help=help,
        metavar="NAME" if choices else None,
        rich_help_panel=section.capitalize() if show_default is None else None,
        show_default=shown,
    )
    kind: Any = Literal[choices] if choices else _plain(hint)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _shown(default: Any, name: str) -> str:
    if isinstance(default, bool):
        return name if default else f"no-{name}"
    return "none" if default is None else str(default)


def _plain(hint: Any) -> Any:
    """The first type of a union, which is the one that a command line can give."""
    return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
