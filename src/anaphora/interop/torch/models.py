"""The models of `anaphora.models` as modules of PyTorch, with the same parts and forwards.

This file imports PyTorch: `to_torch` imports it when a model is converted, and sets the parts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = Any  # a tensor, or a tuple of them, [L*D, B, H] each


def run(layer: Any, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    """A recurrent layer over x [T, B, I], within lengths [B]: outputs beyond them are 0.

    The final states are those after the last step of each row; an empty row keeps its first.
    """
    if lengths is None:
        outputs: tuple[Tensor, State] = layer(x, state)
        return outputs
    ends = torch.as_tensor(lengths, device="cpu")
    # PyTorch packs no empty rows: they run for one step, which does not count.
    packed = pack_padded_sequence(x, ends.clamp(min=1), enforce_sorted=False)
    y, final = layer(packed, state)
    y, _ = pad_packed_sequence(y, total_length=len(x))
    empty = (ends == 0).to(x.device)[:, None]  # [B, 1]
    finals = final if isinstance(final, tuple) else (final,)
    firsts: Any = state if isinstance(state, tuple) else (state,) * len(finals)
    kept = tuple(
        torch.where(empty, torch.zeros_like(after) if first is None else first, after)
        for first, after in zip(firsts, finals, strict=True)
    )
    return y.masked_fill(empty, 0), kept if isinstance(final, tuple) else kept[0]


def last_outputs(layer: Any, state: State) -> Tensor:
    """The outputs of the last layer at the last step of each row, directions joined [B, D*H]."""
    h: Tensor = state[0] if isinstance(state, tuple) else state
    return h[-2:].transpose(0, 1).flatten(1) if layer.bidirectional else h[-1]


class CharacterLayer(nn.Module):
    """A vector for each word from its characters [W, ...], with lengths [...]."""

    embedding: nn.Embedding
    recurrent: nn.Module

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """The last states of both directions, [..., 2 H]."""
        flat = characters.reshape(len(characters), -1)
        _, state = run(self.recurrent, self.embedding(flat), None, lengths.reshape(-1))
        return last_outputs(self.recurrent, state).reshape(*lengths.shape, -1)


class Reader(nn.Module):
    """What all models that read one sequence share: embedding or features, recurrent layers."""

    drop: nn.Module
    recurrent: Any
    output: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.embedding: nn.Module | None = None
        self.characters: nn.Module | None = None

    def read(
        self, inputs: Tensor, state: State, lengths: Tensor | None, *spelling: Tensor | None
    ) -> tuple[Tensor, State]:
        """Ids [T, B] or features [T, B, I]; outputs [T, B, D*H] and the state."""
        x = inputs if self.embedding is None else self.drop(self.embedding(inputs))
        if self.characters is not None:
            x = torch.cat([x, self.drop(self.characters(*spelling))], dim=-1)
        return run(self.recurrent, x, state, lengths)


class LanguageModel(Reader):
    """Scores of every next token."""

    def forward(
        self, ids: Tensor, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Shapes: ids [T, B]; lengths [B]; returns logits [T, B, V] and the state."""
        y, state = self.read(ids, state, lengths)
        return self.output(self.drop(y)), state


class SequenceTagger(Reader):
    """Scores of the tags of each step."""

    def forward(
        self,
        inputs: Tensor,
        state: State = None,
        lengths: Tensor | None = None,
        characters: Tensor | None = None,
        character_lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Shapes: ids [T, B] or features [T, B, I]; lengths [B]; characters [W, T, B] with their
        lengths [T, B], if the model reads them; returns logits [T, B, C] and the state.
        """
        y, state = self.read(inputs, state, lengths, characters, character_lengths)
        return self.output(self.drop(y)), state


class SequenceToVector(Reader):
    """A prediction for each sequence, of the "last" output, or the "mean" or "max" of all."""

    pooled_drop: nn.Module

    def __init__(self, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Shapes: ids [T, B] or features [T, B, I]; lengths [B]; returns [B, O]."""
        y, state = self.read(inputs, None, lengths)
        if self.pooling == "last":
            pooled = last_outputs(self.recurrent, state)
        else:
            pooled = self._pooled(y, lengths)
        answer: Tensor = self.output(self.pooled_drop(pooled))
        return answer

    def _pooled(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        T, B = y.shape[:2]
        ends = torch.full((B,), T) if lengths is None else torch.as_tensor(lengths)
        steps = ends.to(y.device)[:, None]  # [B, 1]
        if self.pooling == "mean":
            return y.sum(dim=0) / steps.clamp(min=1)
        beyond = torch.arange(T, device=y.device)[:, None, None] >= steps  # [T, B, 1]
        return y.masked_fill(beyond, -torch.inf).amax(dim=0).masked_fill(steps == 0, 0)


class Attention(nn.Module):
    """Means of states, weighted by their similarity to queries; a subclass has `scores`."""

    key: nn.Module

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Shapes: queries [T, B, Q]; keys [S, B, A]; returns [B, T, S]."""
        raise NotImplementedError

    def forward(
        self, queries: Tensor, states: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Shapes: queries [T, B, Q]; states [S, B, E]; lengths [B], of the states; returns contexts
        [T, B, E] and weights [T, B, S], 0 beyond the lengths.
        """
        scores = self.scores(queries, self.key(states))
        if lengths is not None:
            ends = torch.as_tensor(lengths, device=scores.device)
            beyond = torch.arange(len(states), device=scores.device) >= ends[:, None]
            scores = scores.masked_fill(beyond[:, None], -torch.inf)
        weights = scores.softmax(dim=-1).nan_to_num(0.0)  # of rows without a state
        contexts = weights @ states.transpose(0, 1)
        return contexts.transpose(0, 1), weights.transpose(0, 1)


class MultiplicativeAttention(Attention):
    """``score = query . (W state)``."""

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:  # noqa: D102
        return queries.transpose(0, 1) @ keys.permute(1, 2, 0)


class AdditiveAttention(Attention):
    """``score = v . tanh(W query + U state)``."""

    query: nn.Module
    score: nn.Module

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:  # noqa: D102
        sums = self.query(queries).transpose(0, 1)[:, :, None] + keys.transpose(0, 1)[:, None]
        score: Tensor = self.score(sums.tanh())
        return score.squeeze(-1)


class Decoder(nn.Module):
    """Tokens to the features of the output layer, with attention to a source or without."""

    embedding: nn.Module
    drop: nn.Module
    recurrent: Any
    output: nn.Module
    combine: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.attention: nn.Module | None = None

    def forward(
        self,
        ids: Tensor,
        state: State,
        memory: tuple[Tensor, Tensor | None] | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State, Tensor | None]:
        """Shapes: ids [T, B]; memory states [S, B, E] and their lengths [B] or None; returns
        features [T, B, F], the state, and weights [T, B, S] or None.
        """
        y, state = run(self.recurrent, self.drop(self.embedding(ids)), state, lengths)
        weights = None
        if self.attention is not None and memory is not None:
            contexts, weights = self.attention(y, *memory)
            y = self.combine(torch.cat([contexts, y], dim=-1)).tanh()
        return self.drop(y), state, weights


class EncoderDecoder(nn.Module):
    """A sequence to a sequence: scores of the tokens that may follow each input."""

    embedding: nn.Module
    drop: nn.Module
    encoder: Any
    decoder: Any

    def forward(
        self,
        source: Tensor,
        inputs: Tensor,
        source_lengths: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Shapes: source [S, B]; inputs [T, B]; returns logits [T, B, V] and weights [T, B, S] or
        None.
        """
        y, final = run(self.encoder, self.drop(self.embedding(source)), None, source_lengths)
        joined = tuple(map(self._joined, final if isinstance(final, tuple) else (final,)))
        state = joined if len(joined) > 1 else joined[0]
        memory = None if self.decoder.attention is None else (self.drop(y), source_lengths)
        features, _, weights = self.decoder(inputs, state, memory, lengths)
        return self.decoder.output(features), weights

    def _joined(self, state: Tensor) -> Tensor:
        """The directions of each layer side by side: [L*D, B, H/D] to [L, B, H]."""
        L, (_, B, H) = self.encoder.num_layers, state.shape
        return state.reshape(L, -1, B, H).transpose(1, 2).reshape(L, B, -1)


class VectorToSequence(nn.Module):
    """A vector to a sequence: it makes the initial state of the decoder."""

    initial: nn.Module
    decoder: Any

    def forward(
        self, source: Tensor, inputs: Tensor, source_lengths: None = None, lengths: Any = None
    ) -> tuple[Tensor, None]:
        """Shapes: source [B, I]; inputs [T, B]; lengths [B]; returns logits [T, B, V] and None."""
        layer = self.decoder.recurrent
        made = self.initial(source).tanh()
        states = made.reshape(len(source), -1, layer.num_layers, layer.hidden_size)
        first = tuple(one.contiguous() for one in states.permute(1, 2, 0, 3))
        features, _, _ = self.decoder(inputs, first if len(first) > 1 else first[0], None, lengths)
        return self.decoder.output(features), None
