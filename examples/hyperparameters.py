"""Search hyperparameters with Optuna, which ends trials early that do worse than others.

    pip install optuna
    python examples/hyperparameters.py book.txt --trials 50

Each trial trains a character language model with another cell, size, learning rate and dropout. A
callback reports every validation loss, and the trial is pruned if it is worse than the median of
earlier trials at the same step. Without a text it learns from the source of one module of the
standard library.

Several processes, also on several machines with a shared disk, work on one search if each runs the
same command with the same journal; start it again to continue the search:

    python examples/hyperparameters.py book.txt --trials 50 --journal search.log
"""

import argparse
import math
from pathlib import Path

import optuna

from anaphora import optim, random
from anaphora.data import CharacterTokenizer, batchify, cover
from anaphora.models import LanguageModel
from anaphora.training import Callback, Trainer, TrainingDiverged, TrainingOptions


class Pruning(Callback):
    """Report the loss of each evaluation to a trial, and end the trial if it is to be pruned."""

    def __init__(self, trial):
        self.trial = trial

    def on_record(self, trainer, record):
        """Report; only records of evaluations have a validation loss."""
        if record["kind"] == "evaluation":
            self.trial.report(record["loss"], record["step"])
            if self.trial.should_prune():
                raise optuna.TrialPruned(f"pruned at step {record['step']:,}")


def main(arguments=None):
    """Search; return the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path, default=Path(argparse.__file__))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="updates per trial")
    parser.add_argument("--largest", type=int, default=256, help="the largest hidden size")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--journal", help="a file through which processes share the search")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    text = options.text.read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.fit([text])
    ids = tokenizer.encode(text)
    held_out = len(ids) // 10
    batches = batchify(ids[:-held_out], options.batch_size, options.window)
    validation = cover(ids[-held_out:], options.batch_size, options.window)

    def objective(trial):
        """Train with the values of a trial; return the best validation loss."""
        with random.seeded(options.seed):  # initial weights and dropout
            model = LanguageModel(
                tokenizer.vocabulary_size,
                cell=trial.suggest_categorical("cell", ["lstm", "gru"]),
                hidden_size=trial.suggest_int("hidden_size", 16, options.largest, log=True),
                dropout=trial.suggest_float("dropout", 0.0, 0.5),
            )
            learning_rate = trial.suggest_float("learning_rate", 1e-3, 5e-2, log=True)
            optimizer = optim.Adam(model.parameters(), learning_rate)
            trainer = Trainer(
                model,
                optimizer,
                batches,
                TrainingOptions(
                    max_steps=options.steps,
                    evaluate_every=max(1, options.steps // 6),
                    clip_norm=1.0,
                    seed=options.seed,
                ),
                schedule=optim.Cosine(optimizer, total_steps=options.steps),
                validation=validation,
                callbacks=[Pruning(trial)],
            )
            trainer.run(progress=False)
        return trainer.progress.best_loss

    storage = None
    if options.journal:
        file = optuna.storages.journal.JournalFileBackend(options.journal)
        storage = optuna.storages.JournalStorage(file)
    study = optuna.create_study(
        study_name="language model",
        storage=storage,
        load_if_exists=True,
        # Processes that share a search must not all try the same values.
        sampler=optuna.samplers.TPESampler(seed=None if options.journal else options.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    # A trial whose loss becomes infinite fails, and the search goes on.
    study.optimize(objective, options.trials, catch=(TrainingDiverged,))

    pruned = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    best = study.best_trial.number
    print(f"{len(study.trials)} trials, {pruned} of them pruned; the best, {best}:")
    for name, value in study.best_params.items():
        print(f"  {name} {value if isinstance(value, str) else f'{value:.4g}'}")
    print(f"  {study.best_value / math.log(2):.3f} bits per character")
    return study


if __name__ == "__main__":
    main()
