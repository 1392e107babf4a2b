"""The tasks that ``anaphora train --task`` knows, by name."""

from __future__ import annotations

import os

from anaphora.artifact import ArtifactError, ModelDirectory, read_json
from anaphora.training.classification import ClassifyTask
from anaphora.training.language_model import LANGUAGE_MODEL
from anaphora.training.tagging import TagTask
from anaphora.training.task import Task
from anaphora.training.translation import TranslateTask

TASKS: dict[str, Task] = {
    task.name: task for task in (LANGUAGE_MODEL, ClassifyTask(), TagTask(), TranslateTask())
}
"""Tasks by the name that the command line has for them; a new one is added here."""


def task_of(directory: str | os.PathLike[str]) -> Task:
    """Return the task of the model in a directory.

    Raises:
        ArtifactError: the directory is missing or damaged, or its model is of no task in `TASKS`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ModelDirectory.create(folder).save({"task": "sequence_tagger"}, {}, {})
    ...     task_of(folder).name
    'tag'
    """
    home = ModelDirectory.open(directory)
    config = read_json(home.config, within=home.path)
    for task in TASKS.values():
        if task.kind == config.get("task"):
            return task
    raise ArtifactError(
        f"{home.config}: its task is {config.get('task')!r}, which no command knows; expected "
        f"{', '.join(task.kind for task in TASKS.values())}"
    )
