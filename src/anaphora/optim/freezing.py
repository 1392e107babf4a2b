"""Fine-tuning parameters by name: freezing, layer groups and their learning rates.

Names are those of ``module.named_parameters()``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anaphora.optim.base import named, not_negative, positive
from anaphora.tensor import Parameter

_LAYER = re.compile(r"(.*?)[^.]*_l(\d+)(?:_reverse)?(?:\..*)?")  # weight_ih_l0, norm_l0.weight


def matching(
    named_parameters: Iterable[tuple[str, Parameter]], patterns: str | Sequence[str]
) -> list[str]:
    """The names of the parameters that a pattern matches, in the order of the parameters.

    Args:
        named_parameters: The result of ``module.named_parameters()``.
        patterns: Shell patterns: ``*`` for any characters, ``?`` for one, ``[01]`` for one of a
            set.

    Raises:
        ValueError: a pattern matches no parameter; the message lists their names.

    >>> from anaphora import nn
    >>> matching(nn.LSTM(3, 4, num_layers=2).named_parameters(), "bias_*_l1")
    ['bias_ih_l1', 'bias_hh_l1']
    """
    names = list(named("matching", named_parameters))
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"no parameter is named {pattern!r}; expected {', '.join(names)} (* matches any "
                "characters)"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def freeze(
    named_parameters: Iterable[tuple[str, Parameter]], patterns: str | Sequence[str]
) -> list[str]:
    """Freeze the parameters whose names match: they are not trained, and cost no training time.

    ``requires_grad`` becomes False; set it to True to train them again.

    Args:
        named_parameters: The result of ``module.named_parameters()``.
        patterns: As for `matching`.

    Returns:
        The names of the frozen parameters.

    Raises:
        ValueError: a pattern matches no parameter, or no parameter is left to train.

    >>> from anaphora import nn
    >>> layer = nn.LSTM(3, 4, num_layers=2)
    >>> freeze(layer.named_parameters(), ["*_l0", "bias*"])[:3]
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0']
    >>> [name for name, p in layer.named_parameters() if p.requires_grad]
    ['weight_ih_l1', 'weight_hh_l1']
    """
    parameters = dict(named_parameters)
    names = matching(parameters.items(), patterns)
    if not any(p.requires_grad for name, p in parameters.items() if name not in set(names)):
        raise ValueError("freezing leaves no parameter to train; freeze fewer")
    for name in names:
        parameters[name].requires_grad = False
    return names


def layer_groups(named_parameters: Iterable[tuple[str, Parameter]]) -> list[list[str]]:
    """Divide the parameters of a model into its layers, in order from the inputs.

    A layer is one attribute of the model, or one number in a stack: ``embedding.*``,
    ``recurrent.*_l0``, ``recurrent.*_l1``, ``output.*``.

    >>> from anaphora.models import LanguageModel
    >>> model = LanguageModel(vocabulary_size=5, hidden_size=3, num_layers=2)
    >>> [names[0] for names in layer_groups(model.named_parameters())]
    ['embedding.weight', 'recurrent.weight_ih_l0', 'recurrent.weight_ih_l1', 'output.weight']
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in named("layer_groups", named_parameters):
        found = _LAYER.fullmatch(name)
        layer = found.groups() if found else (name.rpartition(".")[0],)
        groups.setdefault(layer, []).append(name)
    return list(groups.values())


def discriminative_groups(
    named_parameters: Iterable[tuple[str, Parameter]],
    groups: Sequence[Sequence[str]],
    learning_rate: float,
    *,
    factor: float = 2.6,
) -> list[dict[str, Any]]:
    """Parameter groups with a lower learning rate for each layer below (Howard & Ruder 2018).

        learning_rate of group k = learning_rate / factor ** (K - 1 - k)     k = 0, ..., K - 1

    so that the last layers, which are the most task-specific, learn fastest.

    Args:
        named_parameters: The result of ``module.named_parameters()``.
        groups: Names or patterns of the parameters of each layer, as from `layer_groups`, the one
            nearest the inputs first. A parameter belongs to the first group that matches it, or
            else to the last.
        learning_rate: The learning rate of the last group.
        factor: The ratio between two groups, > 0.

    Returns:
        Groups for an optimizer; those without a parameter are omitted.

    Raises:
        ValueError: a pattern matches no parameter, or a number is out of range.

    >>> from anaphora.models import LanguageModel
    >>> from anaphora.optim import Adam
    >>> model = LanguageModel(vocabulary_size=5, hidden_size=3)
    >>> layers = layer_groups(model.named_parameters())  # embedding, recurrent, output
    >>> groups = discriminative_groups(model.named_parameters(), layers, 0.09, factor=3)
    >>> [round(group["learning_rate"], 6) for group in Adam(groups, learning_rate=0.09).groups]
    [0.01, 0.03, 0.09]
    """
    owner = "discriminative_groups"
    learning_rate = not_negative(owner, "learning_rate", learning_rate)
    factor = positive(owner, "factor", factor)
    parameters = dict(named_parameters)
    return [
        {
            "parameters": [(name, parameters[name]) for name in names],
            "learning_rate": learning_rate / factor ** (len(groups) - 1 - k),
        }
        for k, names in enumerate(divided(parameters, groups))
        if names
    ]


def divided(
    parameters: Mapping[str, Parameter], groups: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The names of the parameters of each group; those that no pattern matches go to the last.

    Raises:
        ValueError: there is no group, or a pattern matches no parameter.

    >>> divided({"a": Parameter([1.0]), "b": Parameter([2.0])}, [["a"], []])
    [['a'], ['b']]
    """
    if not groups:
        raise ValueError("there are no layer groups; give a list of lists of names or patterns")
    left = dict(parameters)
    result: list[list[str]] = []
    for patterns in groups:
        names = matching(parameters.items(), patterns) if patterns else []
        result.append([name for name in names if left.pop(name, None) is not None])
    result[-1] += list(left)
    return result
