"""What is inside a model that predicts: the attention of a translator, the states of others."""

from __future__ import annotations

from typing import Any

import numpy as np

from anaphora.data.codecs.sequences import SequenceCodec
from anaphora.generation.reading import token_text
from anaphora.generation.translation import translate
from anaphora.models import EncoderDecoder
from anaphora.serve.models import ServedModel
from anaphora.tensor import no_grad

MOST_STEPS = 4096
"""Steps of an input, all of whose states are kept in memory while they are looked at."""


def inside(served: ServedModel, input: Any) -> dict[str, Any]:
    """What a model does with an input, as `inputs_of` returns one.

    Returns:
        "steps", the tokens or words (of a series, nothing); and for a translator with attention
        "targets", the words of the translation, and "attention" [targets, steps]; for another model
        "states", by names such as ``h_l0``, each [T, H].
    """
    model, codec = served.model, served.model.codec
    if isinstance(model, EncoderDecoder):
        options = served.options
        (found,) = translate(
            model, codec, [input], options.beam_size, no_repeat_ngram=options.no_repeat_ngram
        )
        source, target = codec["source"], codec["target"]
        steps = [source.words[id] for id in source.encode(input + "\n")]
        targets = [*found.text.split(" "), target.words[target.start_id]]
        weights = found.hypothesis.weights
        if weights is None:
            return {"steps": steps}
        return {"steps": steps, "targets": targets[: len(weights)], "attention": weights}
    if isinstance(codec, SequenceCodec):
        batch = codec.input_batch([input], model.dtype)
        tokenizer = codec.tokenizer
        ids = [] if tokenizer is None else batch.inputs[:, 0].tolist()
        steps = [token_text(tokenizer, id) for id in ids] if tokenizer is not None else []
    else:
        batch, steps = codec.input_batch([input]), list(input)
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        spelling = [getattr(batch, name, None) for name in ("characters", "character_lengths")]
        x = model.embed(batch.inputs, *spelling)
        _, _, recorded = model.recurrent.record(x)
    states = tuple(model.recurrent.state_shapes())
    return {
        "steps": steps,
        "states": {
            name: values[:, 0]
            for name, values in recorded.items()
            if name.rpartition("_l")[0] in states
        },
    }
