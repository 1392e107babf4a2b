"""What a task is asked for by a training that begins, goes on, or begins with a model."""

import dataclasses

import pytest

from anaphora.models import load
from anaphora.training import TASKS, Start, prepare_training, resume_training

SMALL = {"hidden_size": 4, "batch_size": 4, "max_steps": 2, "minimum_count": 1}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("text,label\n" + "oh well,vowel\nhm no,consonant\n" * 12)
    return path


def watched(task, calls):
    def open_data(options, codec, folder):
        calls.append("open")
        return task.open(options, codec, folder)

    def begin(options, trainer, initial):
        calls.append((initial, trainer.progress.step, len(trainer.batches)))

    return dataclasses.replace(task, open=open_data, begin=begin)


def test_data_are_opened_once_and_the_task_knows_whether_weights_are_new(table, tmp_path):
    calls = []
    task = watched(TASKS["classify"], calls)
    columns = {"column": "text", "label_column": "label"}
    options = task.options.make(**SMALL, **columns)
    prepare_training(task, options, tmp_path / "model", [table]).run()
    batches = 6  # of 22 examples, as two are held out
    assert calls == ["open", (True, 0, batches)]
    calls.clear()
    resume_training(task, tmp_path / "model", {"max_steps": 3}).run()
    assert calls == ["open", (False, 0, batches)]
    calls.clear()
    start = Start(tmp_path / "model")
    start.task = task  # as `task_of` would give it
    options = start.options(task, max_steps=1, **columns)
    prepare_training(task, options, tmp_path / "tuned", [table], start=start).run()
    assert [call if call == "open" else call[0] for call in calls] == ["open", False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ("*",)}, "leaves no parameter to train"),
        ({"freeze": ("missing.*",)}, "missing"),
    ],
)
def test_a_trainer_that_cannot_be_made_leaves_the_old_model(table, tmp_path, changes, message):
    task, columns = TASKS["classify"], {"column": "text", "label_column": "label"}
    options = task.options.make(**SMALL, **columns)
    prepare_training(task, options, tmp_path / "model", [table]).run()
    before = {path: path.read_bytes() for path in tmp_path.glob("model/**/*") if path.is_file()}
    options = task.options.make(**SMALL, **columns, **changes)
    with pytest.raises(ValueError, match=message):
        prepare_training(task, options, tmp_path / "model", [table], overwrite=True)
    after = {path: path.read_bytes() for path in tmp_path.glob("model/**/*") if path.is_file()}
    assert after == before
    assert load(tmp_path / "model").hidden_size == 4


@pytest.mark.parametrize("name", TASKS)
def test_columns_are_options_of_tables(name):
    task = TASKS[name]
    assert set(task.columns) <= set(task.options.fields("data"))
    for column in task.columns:
        with pytest.raises(
            ValueError, match=f"^{column} is for tables, but none was given; give the format"
        ):
            task.check_files({column: "body"}, ["reviews.txt", "-"])
        task.check_files({column: "body"}, ["reviews.txt", "reviews.csv"])
        task.check_files({column: "body", "format": "csv"}, ["-"])
    task.check_files(dict.fromkeys(task.columns), ["reviews.txt"])
