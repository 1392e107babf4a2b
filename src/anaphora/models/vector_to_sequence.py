"""Vector to sequence: the decoder's initial state depends on a vector, as in image captioning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from anaphora import ops
from anaphora.data import TargetCodec
from anaphora.models.body import DecoderBody, check_tied
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.models.reader import make_linear
from anaphora.nn.states import State, from_tuple
from anaphora.tensor import as_tensor


@dataclass(eq=False, repr=False)
class VectorToSequence(ConditionalLanguageModel, DecoderBody):
    """A decoder that is conditioned on a vector, such as the features of an image.

        state = tanh(W x + b)

    is the initial value of each state of each layer; the decoder sees nothing else of x, as in the
    image captioning of Vinyals et al. 2015 and Karpathy & Fei-Fei 2015.

    Shapes: source x [B, I] floats; inputs [T, B] integers; returns logits [T, B, V] and None.

    Attributes:
        input_size: I.
        vocabulary_size: V.
        end_id: The token that ends a sequence, and precedes its first token.

    The other arguments are those of `DecoderBody`.

    Raises:
        ValueError: an option is out of range, or ``tied`` is used with E other than H; in a call,
            the vectors are not [B, I].

    >>> import numpy as np
    >>> model = VectorToSequence(input_size=3, vocabulary_size=10, hidden_size=4)
    >>> logits, _ = model(np.ones((2, 3), np.float32), inputs=[[0, 0], [5, 7]])
    >>> logits.shape
    (2, 2, 10)
    """

    input_size: int
    vocabulary_size: int
    end_id: int = field(default=0, kw_only=True)

    kind = "vector_to_sequence"
    codec_type = TargetCodec

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tied(self)
        if self.trainable_state:
            raise ValueError(
                "VectorToSequence: the initial states are made of the vector, so trainable_state "
                "has nothing to train; omit it"
            )
        self.decoder = Decoder(self, self.vocabulary_size, end_id=self.end_id)
        states = len(self.decoder.recurrent.state_shapes())
        size = states * self.num_layers * self.hidden_size
        self.initial = make_linear(self, self.input_size, size)

    def encode(self, source: Any, lengths: ArrayLike | None = None) -> tuple[State, None]:
        """Make the decoder's initial state.

        Args:
            source: [B, I].
            lengths: None; a vector has no steps.

        Raises:
            ValueError: the shape does not match, or lengths are given.
        """
        x = as_tensor(source, self.initial.weight.dtype, "VectorToSequence: a source")
        if x.ndim != 2 or x.shape[1] != self.initial.in_features or lengths is not None:
            raise ValueError(
                f"VectorToSequence: a source of shape {x.shape}; expected [B, "
                f"{self.initial.in_features}], and no lengths"
            )
        recurrent = self.decoder.recurrent
        sizes = len(recurrent.state_shapes()), recurrent.num_layers, recurrent.hidden_size
        values = ops.tanh(self.initial(x)).reshape(len(x), *sizes).transpose(1, 2, 0, 3)
        return from_tuple(ops.unstack(values)), None  # each [L, B, H]
