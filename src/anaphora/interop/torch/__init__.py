"""Modules of PyTorch in and out, and its checkpoints."""

from __future__ import annotations

from anaphora.interop.torch.checkpoints import load_checkpoint
from anaphora.interop.torch.layers import ChannelsFirst, NormChannelsFirst, Sequential
from anaphora.interop.torch.reading import from_torch
from anaphora.interop.torch.traced import Own
from anaphora.interop.torch.writing import to_torch

__all__ = [
    "ChannelsFirst", "NormChannelsFirst", "Own", "Sequential", "from_torch", "load_checkpoint",
    "to_torch",
]  # fmt: skip
