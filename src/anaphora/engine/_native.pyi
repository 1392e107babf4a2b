"""The native module, src/module*.cpp; `native` says what its functions mean."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

_Array: TypeAlias = NDArray[Any]
# inputs, constants, instructions (operation, a, b), outputs
_Program: TypeAlias = tuple[int, Sequence[float], Sequence[int], Sequence[int]]

class Cell:
    def __init__(
        self,
        forward: _Program,
        backward: _Program,
        gates: Sequence[tuple[int, int]],
        saved: Sequence[int],
        states: int,
        parameters: int,
    ) -> None: ...

class _Stack:
    def __init__(
        self,
        cell: Cell,
        hidden: int,
        layers: Sequence[tuple[Any, ...]],
        table: _Array | None,
        output: tuple[_Array, _Array | None] | None,
    ) -> None: ...
    def run(self, x: _Array, states: list[_Array]) -> _Array: ...
    def run_ids(self, ids: _Array, states: list[_Array]) -> _Array: ...
    def generate(
        self,
        ids: _Array,
        states: list[_Array],
        uniforms: _Array,
        temperature: float,
        top_k: int,
        top_p: float,
    ) -> tuple[_Array, int, _Array]: ...

# The functions of one precision: all arrays have it, but for targets and lengths, which are int64.
class _Precision:
    def matmul(self, a: _Array, b: _Array, bias: _Array | None) -> _Array: ...
    def sum_columns(self, x: _Array) -> _Array: ...
    def cross_entropy_forward(
        self, logits: _Array, targets: _Array, out: _Array | None
    ) -> tuple[_Array, _Array]: ...
    def cross_entropy_backward(
        self, probabilities: _Array, targets: _Array, d_losses: _Array
    ) -> _Array: ...
    def sgd(
        self, parameter: _Array, gradient: _Array, learning_rate: float, weight_decay: float
    ) -> None: ...
    def scale(self, x: _Array, factor: float) -> None: ...
    def sum_of_squares(self, x: _Array) -> float: ...
    def recurrence_forward(
        self,
        cell: Cell,
        x_gates: _Array,
        states: Sequence[_Array],
        weight_hh: _Array | None,
        bias_hh: _Array | None,
        weight_hr: _Array | None,
        parameters: Sequence[_Array],
        lengths: _Array | None,
        reverse: bool,
        save: bool,
        named: Sequence[int],
    ) -> tuple[_Array, Any, _Array | None, list[_Array]]: ...
    def recurrence_backward(
        self,
        cell: Cell,
        saved: _Array,
        d_output: _Array | None,
        d_states: Sequence[_Array],
        steps: int,
        weight_hh: _Array | None,
        weight_hr: _Array | None,
        lengths: _Array | None,
        reverse: bool,
    ) -> tuple[_Array, _Array | None, _Array | None, _Array]: ...
    Stack: type[_Stack]
    def draw(
        self, logits: _Array, uniforms: _Array, temperature: float, top_k: int, top_p: float
    ) -> tuple[_Array, bool]: ...

float32: _Precision
float64: _Precision

def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str) -> None: ...
def peak() -> float: ...
