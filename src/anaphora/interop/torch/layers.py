"""What both directions share: PyTorch itself, and modules that it has and we lack."""

from __future__ import annotations

from typing import Any

from anaphora import nn
from anaphora.tensor import Array, Tensor, as_tensor


def pytorch() -> Any:
    """PyTorch, which is imported when it is used.

    Raises:
        ImportError: it is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("this needs PyTorch: pip install torch") from error
    return torch


def numbers(torch: Any, tensor: Any) -> Array:
    """The numbers of a tensor: float32, or float64 as it is."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    found: Array = tensor.numpy()
    return found


def place_of(place: str, kind: type) -> str:
    """A module in a message: where it is, and its class."""
    return f"{place} ({kind.__name__})" if place else kind.__name__


class ChannelsFirst(nn.Conv1d):
    """A convolution with PyTorch's layout, [B, I, T] or [I, T] to [B, O, S] or [O, S].

    >>> import numpy as np
    >>> ChannelsFirst(3, 2, kernel_size=4)(np.ones((5, 3, 9), np.float32)).shape
    (5, 2, 6)
    """

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        """Convolve; as `nn.Conv1d` but for the layout."""
        x = as_tensor(x, self.weight.dtype, "Conv1d: an input")
        if x.ndim not in (2, 3):
            raise ValueError(f"Conv1d: an input of shape {x.shape}; expected [B, I, T] or [I, T]")
        y = super().forward(x.transpose(2, 0, 1) if x.ndim == 3 else x.transpose(1, 0), lengths)
        return y.transpose(1, 2, 0) if y.ndim == 3 else y.transpose(1, 0)


class NormChannelsFirst(nn.BatchNorm1d):
    """A batch normalization with PyTorch's layout, [B, I, T] or [B, I].

    >>> import numpy as np
    >>> NormChannelsFirst(3).eval()(np.ones((5, 3, 9), np.float32)).shape
    (5, 3, 9)
    """

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        """Normalize; as `nn.BatchNorm1d` but for the layout."""
        x = as_tensor(x, self.dtype, "BatchNorm1d: an input")
        if x.ndim != 3:
            return super().forward(x, lengths)
        return super().forward(x.transpose(2, 0, 1), lengths).transpose(1, 2, 0)


class Sequential(nn.Sequential):
    """PyTorch's Sequential, whose modules get the complete result of the one before.

    >>> import numpy as np
    >>> Sequential(nn.Linear(3, 4), nn.GRU(4, 5))(np.ones((6, 2, 3), np.float32))[1].shape
    (1, 2, 5)
    """

    def forward(self, x: Any) -> Any:
        """Run the modules in order."""
        for module in self:
            x = module(x)
        return x
