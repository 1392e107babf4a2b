"""Vector to sequence: a vector makes the decoder's initial state, as in captioning pictures."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.cells import Cell
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.nn.initialization import Initialization
from anaphora.tensor import as_tensor


class VectorToSequence(ConditionalLanguageModel):
    """A decoder that writes about a vector, such as the features of a picture.

        state = tanh(W x + b)

    makes each state of each layer with which the decoder begins; it sees nothing else of x (as the
    captioners of Vinyals et al. 2015 and Karpathy & Fei-Fei 2015 see their picture once).

    Shapes: source x [B, I] floats; inputs [T, B] integers; returns logits [T, B, V] and None.

    Args:
        input_size: I.
        vocabulary_size: V.
        hidden_size: H of every layer.
        embedding_size: E; H if None.
        num_layers: L.
        cell: The name of a cell, or a `Cell`.
        dropout: The share dropped on the embeddings, between layers and before the output.
        tied: Use the embeddings as the weights of the output as well; E must be H.
        end_id: The token that ends a sequence, and stands before its first.
        initialization: Of all layers; see `nn.Recurrent`.
        forget_bias: The bias with which forget gates start; None leaves it to the initialisation.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range, or ``tied`` with E other than H; at the call, the
            vectors are not [B, I].

    >>> import numpy as np
    >>> model = VectorToSequence(input_size=3, vocabulary_size=10, hidden_size=4)
    >>> logits, _ = model(np.ones((2, 3), np.float32), inputs=[[0, 0], [5, 7]])
    >>> logits.shape
    (2, 2, 10)
    """

    task = "vector_to_sequence"

    def __init__(
        self,
        input_size: int,
        vocabulary_size: int,
        hidden_size: int,
        embedding_size: int | None = None,
        num_layers: int = 1,
        cell: str | Cell = "lstm",
        dropout: float = 0.0,
        tied: bool = False,
        end_id: int = 0,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: str = "float32",
    ) -> None:
        of_decoder: dict[str, Any] = {
            "vocabulary_size": vocabulary_size,
            "hidden_size": hidden_size,
            "embedding_size": embedding_size,
            "num_layers": num_layers,
            "cell": cell,
            "dropout": dropout,
            "tied": tied,
            "end_id": end_id,
            "initialization": initialization,
            "forget_bias": forget_bias,
            "dtype": dtype,
        }
        self.options = {"input_size": input_size, **of_decoder}
        self.decoder = Decoder(**of_decoder)
        states = len(self.decoder.recurrent.cell.states)
        self.initial = nn.Linear(
            input_size,
            states * num_layers * hidden_size,
            initialization=initialization,
            dtype=dtype,
        )

    def encode(self, source: Any, lengths: ArrayLike | None = None) -> tuple[Any, None]:
        """Make the decoder's initial state.

        Args:
            source: [B, I].
            lengths: None; a vector has no steps.

        Raises:
            ValueError: the shape is another one, or there are lengths.
        """
        x = as_tensor(source, self.initial.weight.dtype, "VectorToSequence: a source")
        if x.ndim != 2 or x.shape[1] != self.initial.in_features or lengths is not None:
            raise ValueError(
                f"VectorToSequence: a source of shape {x.shape}; wanted [B, "
                f"{self.initial.in_features}], and no lengths"
            )
        recurrent = self.decoder.recurrent
        sizes = len(recurrent.cell.states), recurrent.num_layers, recurrent.hidden_size
        values = ops.tanh(self.initial(x)).reshape(len(x), *sizes).transpose(1, 2, 0, 3)
        states = ops.unstack(values)  # each [L, B, H]
        return states[0] if len(states) == 1 else states, None
