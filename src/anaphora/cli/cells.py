"""Custom cells on the command line, as FILE.py:NAME."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from anaphora.cells import Cell

_MODULE = "anaphora_cell_file"  # the name of the file's module


def cell_of(value: str) -> str | Cell:
    """The cell given by ``--cell``: FILE.py:NAME is looked up by running the file; a name is kept.

    Raises:
        ValueError: there is no such file, running it fails, or it has no cell of that name.

    >>> cell_of("gru")
    'gru'
    """
    path, _, name = value.rpartition(":")
    if not path.endswith(".py"):
        if value.endswith(".py"):
            raise ValueError(f"cell {value!r:.200} names only a file; give FILE.py:NAME")
        return value
    if not name.isidentifier():
        raise ValueError(f"cell {value!r:.200}: {name!r} is not a valid name; give FILE.py:NAME")
    module = _run(Path(path))
    found = vars(module).get(name)
    cells = [name for name, value in vars(module).items() if isinstance(value, Cell)]
    if isinstance(found, Cell):
        return found
    has = f"its cells are {', '.join(cells)}" if cells else "it has none"
    if name not in vars(module):
        raise ValueError(f"{path}: has no cell {name!r}; {has}")
    hint = " (decorate it with @cell of anaphora.cells)" if callable(found) else ""
    raise ValueError(f"{path}: {name} is a {type(found).__name__}, not a cell{hint}; {has}")


def _run(path: Path) -> ModuleType:
    """The module of a Python file, which may import its neighbors."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a custom cell as FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        within = [f.lineno for f in traceback.extract_tb(error.__traceback__) if _same(f, path)]
        line = within[-1] if within else getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ValueError(
            f"{path}{where}: running it failed with {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _same(frame: traceback.FrameSummary, path: Path) -> bool:
    return Path(frame.filename).resolve() == path.resolve()
