"""The tasks that ``anaphora train --task`` knows, by name."""

from __future__ import annotations

import os

from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.training.classification import CLASSIFY
from anaphora.training.forecasting import FORECAST
from anaphora.training.language_model import LANGUAGE_MODEL
from anaphora.training.regression import REGRESS
from anaphora.training.tagging import TAG
from anaphora.training.task import Task
from anaphora.training.translation import TRANSLATE

TASKS: dict[str, Task] = {
    task.name: task for task in (LANGUAGE_MODEL, CLASSIFY, REGRESS, TAG, TRANSLATE, FORECAST)
}
"""Tasks by name; new ones are added here. The first is the default of the command line."""


def task_of(directory: str | os.PathLike[str]) -> Task:
    """Return the task of the model in a directory.

    Raises:
        ArtifactError: the directory is missing or damaged, or its task is not in `TASKS`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ModelDirectory.create(folder).save({"task": "sequence_tagger"}, {}, {})
    ...     task_of(folder).name
    'tag'
    """
    home = ModelDirectory.open(directory)
    config = home.load_config()
    for task in TASKS.values():
        if task.model.kind == config.get("task"):
            return task
    raise ArtifactError(
        f"{home.config}: its task {config.get('task')!r:.80} is unknown; expected one of "
        f"{', '.join(task.model.kind for task in TASKS.values())}"
    )
