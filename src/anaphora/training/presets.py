"""Presets of language models: sets of options by name."""

from __future__ import annotations

from typing import Any

from anaphora import engine

_ZAREMBA: dict[str, Any] = {
    "level": "word",
    "batch_size": 20,
    "evaluation_batch_size": 1,
    "num_layers": 2,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "schedule": "exponential",
    "loss_per": "sequence",
}

_NATIVE = engine.info()["engine"] == "native"

PRESETS: dict[str, dict[str, Any]] = {
    "char-small": {  # about two minutes on two cores (2:30 without AMX), with either engine
        "minimum_count": 5,
        "hidden_size": 320 if _NATIVE else 256,
        "embedding_size": 64,
        "forget_bias": 1.0,
        "batch_size": 32,
        "window": 64,
        "learning_rate": 0.004,
        "schedule": "cosine",
        "max_steps": 4000 if _NATIVE else 2000,
        "evaluate_every": 500,
    },
    "zaremba-small": {
        **_ZAREMBA,
        "hidden_size": 200,
        "initialization": "0.1",
        "window": 20,
        "epochs": 13,
        "constant_epochs": 4,
        "decay": 0.5,
        "clip_norm": 5.0,
    },
    "zaremba-medium": {
        **_ZAREMBA,
        "hidden_size": 650,
        "dropout": 0.5,
        "initialization": "0.05",
        "window": 35,
        "epochs": 39,
        "constant_epochs": 6,
        "decay": 1 / 1.2,
        "clip_norm": 5.0,
    },
    "zaremba-large": {
        **_ZAREMBA,
        "hidden_size": 1500,
        "dropout": 0.65,
        "initialization": "0.04",
        "window": 35,
        "epochs": 55,
        "constant_epochs": 14,
        "decay": 1 / 1.15,
        "clip_norm": 10.0,
    },
}
"""Options by preset. zaremba-*: the models and schedules of Zaremba et al. 2014: SGD from a
learning rate of 1, losses summed over the window, carried state."""
