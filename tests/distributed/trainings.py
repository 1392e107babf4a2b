"""Trainings of every task in a folder, by as many processes as start this program.

    python trainings.py FOLDER {train|resume} STOP [VARIANT ...]

It stops after update STOP, unless that is 0.

Rank 0 prints a JSON object: for each variant the digest of the weights, the losses, and why the
training ended. All processes check that theirs are the same.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from anaphora.distributed import world
from anaphora.training import TASKS, Callback, exchanges, prepare_training, resume_training

SMALL = {
    "hidden_size": 5, "batch_size": 6, "epochs": 2, "evaluate_every": 3, "log_every": 1,
    "shards": 4, "accumulate": 2, "clip_norm": 0.3, "dropout": 0.3, "learning_rate": 0.01,
}  # fmt: skip
OF_TEXT = {**SMALL, "embedding_size": 4, "window": 7, "evaluation_batch_size": 2}
WORDS = {**OF_TEXT, "level": "word", "vocabulary_size": 50}
CLASSES = {**SMALL, "column": "text", "label_column": "label", "level": "word"}
VARIANTS = {
    "characters": ("language-model", ["text.txt"], {
        **OF_TEXT, "minimum_count": 1, "num_layers": 2, "locked_dropout": True, "zoneout": 0.1,
        "weight_dropout": 0.2, "embedding_dropout": 0.1, "activation_penalty": 2.0,
        "temporal_penalty": 1.0, "layer_norm": True,
    }),
    "words": ("language-model", ["text.txt"], {**WORDS, "optimizer": "sgd", "momentum": 0.9}),
    "sentences": ("language-model", ["text.txt"], {
        **WORDS, "batching": "sentences", "accumulate": 1,
    }),
    "lazy": ("language-model", ["text.txt"], {**WORDS, "lazy_rows": True, "ema_decay": 0.9}),
    "per sequence": ("language-model", ["text.txt"], {
        **WORDS, "loss_per": "sequence", "cell": "gru",
    }),
    "bfloat16": ("language-model", ["text.txt"], {**WORDS, "matmul_precision": "bfloat16"}),
    "float64": ("language-model", ["text.txt"], {**WORDS, "dtype": "float64"}),
    "frozen": ("language-model", ["text.txt"], {
        **WORDS, "num_layers": 2, "freeze": ["*bias*l0"], "gradual_unfreezing": True,
        "discriminative_factor": 2.6,
    }),
    "classify": ("classify", ["classes.tsv"], {**CLASSES, "class_weights": "balanced"}),
    "labels": ("classify", ["classes.tsv"], {**CLASSES, "label_separator": "h"}),
    "series": ("classify", ["series.ts"], SMALL),
    "regress": ("regress", ["numbers.ts"], {**SMALL, "matmul_precision": "bfloat16"}),
    "tag": ("tag", ["tags.tsv"], {
        **SMALL, "tag_column": 2, "character_embedding_size": 2, "character_hidden_size": 3,
        "crf": True,
    }),
    "translate": ("translate", ["a.en", "a.de"], {**SMALL, "minimum_count": 1, "hidden_size": 6}),
    "forecast": ("forecast", ["shops.csv"], {
        **SMALL, "time_column": "day", "target_column": ["sold"], "horizon": 2, "context": 5,
        "batch_size": 4, "evaluate_every": 5,
    }),
}  # fmt: skip


def write_files(folder):
    rng = np.random.default_rng(5)
    letters = np.array(list("abcdefghij  "))
    lines = ["".join(rng.choice(letters, 30)) + "\n" for _ in range(40)]
    (folder / "text.txt").write_text("".join(lines))
    kinds = rng.integers(0, 3, 31)
    rows = [f"{['oh', 'ah', 'hm'][k]} {'xyz'[k]}\t{['oh', 'hm', 'ohm'][k]}\n" for k in kinds]
    (folder / "classes.tsv").write_text("text\tlabel\n" + "".join(rows))
    series = [",".join(f"{x:.3f}" for x in rng.normal(size=rng.integers(2, 6))) for _ in range(31)]
    (folder / "series.ts").write_text(
        "@data\n" + "".join(f"{one}:{'ab'[k % 2]}\n" for k, one in enumerate(series))
    )
    header = "@problemName x\n@timeStamps false\n@targetlabel true\n@data\n"
    (folder / "numbers.ts").write_text(
        header + "".join(f"{one}:{k * 0.25}\n" for k, one in enumerate(series))
    )
    (folder / "tags.tsv").write_text(
        "It\tPRON\nrains\tVERB\n\nWe\tPRON\ngo\tVERB\nhome\tNOUN\n\nGo\tVERB\n\n" * 6
    )
    (folder / "a.en").write_text("a dog\nthe cat sees the dog\na cat\nsees\n" * 6)
    (folder / "a.de").write_text("ein hund\ndie katze sieht den hund\neine katze\nsieht\n" * 6)
    sold = rng.normal(size=25).cumsum()
    sold[7] = np.nan
    days = np.datetime64("2024-01-01") + np.arange(25)
    table = [f"{d},{'' if np.isnan(y) else y}\n" for d, y in zip(days, sold, strict=True)]
    (folder / "shops.csv").write_text("day,sold\n" + "".join(table))


class StopAt(Callback):
    """The last rank asks to stop after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, loss):
        last = trainer.processes.size - 1
        if trainer.progress.step == self.step and trainer.processes.rank == last:
            trainer.request_stop(f"rank {last} stops")


def digest(trainer):
    found = hashlib.sha256()
    for _, parameter in trainer.model.named_parameters():
        found.update(parameter.data.tobytes())
    for array in trainer.optimizer.state_dict()["arrays"].values():
        found.update(array.tobytes())
    return found.hexdigest()


def records(directory):
    times = ("seconds", "communication_seconds")
    kept = [
        {name: value for name, value in record.items() if name not in times}
        for record in directory.read_metrics()
    ]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest(), len(kept), kept[-1]["loss"]


def main(folder, action, stop, names):
    processes, results = world(), {}
    if processes.size == 4:
        exchanges._BUCKET_BYTES = 1  # each gradient travels alone
        exchanges._BLOCK = 20  # and is added in several blocks
    for name in names or VARIANTS:
        kind, files, options = VARIANTS[name]
        task, out = TASKS[kind], folder / name.replace(" ", "-")
        if action == "train":
            made = task.options.make(**options)
            trainer = prepare_training(task, made, out, [folder / file for file in files])
        else:
            trainer = resume_training(task, out)
        if stop:
            trainer.callbacks.append(StopAt(stop))
        reason = trainer.run(progress=False)
        found = digest(trainer)
        assert processes.all_gather((found, reason)) == [(found, reason)] * processes.size
        weights = hashlib.sha256(trainer.directory.weights.read_bytes()).hexdigest()
        results[name] = [found, records(trainer.directory), weights, reason]
    if processes.is_main:
        print(json.dumps(results))


if __name__ == "__main__":
    _, folder, action, stop, *names = sys.argv
    main(Path(folder), action, int(stop), names)
