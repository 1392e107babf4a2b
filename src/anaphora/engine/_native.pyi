"""The native module, src/module*.cpp; see `native` for the meaning of its functions."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from anaphora.engine.recurrence import LayerWeights

_Array: TypeAlias = NDArray[Any]
# inputs, constants, instructions (operation, a, b), outputs
_Program: TypeAlias = tuple[int, Sequence[float], Sequence[tuple[str, int, int]], Sequence[int]]

class Cell: ...  # opaque, as a Stack is
class Stack: ...
class Graph: ...

def make_cell(
    forward: _Program,
    backward: _Program,
    gates: Sequence[tuple[int, int]],
    saved: Sequence[int],
    states: int,
    parameters: int,
) -> Cell: ...
def is_compiled(cell: Cell) -> bool: ...

# The functions of one precision, that of all arrays except targets, lengths, ids and row numbers,
# which are int64, and logarithms of a conditional random field and of CTC, which are float64.
class _Precision:
    def __getattr__(self, name: str) -> Any: ...  # the functions of optimisers, by name
    def pack_stack(
        self,
        cell: Cell,
        hidden: int,
        layers: Sequence[LayerWeights[_Array]],
        table: _Array | None,
        output: tuple[_Array, _Array | None] | None,
        norms: Sequence[tuple[_Array, _Array]],
        epsilon: float,
        precision: str,
    ) -> Stack: ...
    def stack_bytes(self, stack: Stack) -> int: ...
    def run_stack(self, stack: Stack, x: _Array, states: list[_Array]) -> _Array: ...
    def run_stack_on_ids(self, stack: Stack, ids: _Array, states: list[_Array]) -> _Array: ...
    def generate(
        self,
        stack: Stack,
        ids: _Array,
        states: list[_Array],
        uniforms: _Array,
        temperature: float,
        top_k: int,
        top_p: float,
    ) -> tuple[_Array, int, _Array]: ...
    def make_graph(
        self,
        memory: int,
        constants: _Array,
        given: Sequence[tuple[int, tuple[int, ...]]],
        results: Sequence[tuple[int, tuple[int, ...]]],
        steps: Sequence[tuple[Any, ...]],
    ) -> Graph: ...
    def run_graph(self, graph: Graph, given: Sequence[_Array]) -> tuple[_Array, ...]: ...
    def matmul(
        self, a: _Array, b: _Array, bias: _Array | None, gradient: str, precision: str
    ) -> _Array: ...
    def batch_matmul(self, a: _Array, b: _Array) -> _Array: ...
    def softmax_forward(self, x: _Array, mask: _Array | None, logarithm: bool) -> _Array: ...
    def softmax_backward(self, y: _Array, dy: _Array, logarithm: bool) -> _Array: ...
    def sum_columns(self, x: _Array) -> _Array: ...
    def erf(self, x: _Array) -> _Array: ...
    def cross_entropy_forward(
        self, logits: _Array, targets: _Array, out: _Array | None
    ) -> tuple[_Array, _Array]: ...
    def cross_entropy_backward(
        self, probabilities: _Array, targets: _Array, d_losses: _Array
    ) -> _Array: ...
    def linear_cross_entropy(
        self,
        x: _Array,
        weight: _Array,
        bias: _Array | None,
        targets: _Array,
        precision: str,
    ) -> _Array: ...
    def crf_forward(
        self, emissions: _Array, transitions: _Array, start: _Array, end: _Array, lengths: _Array
    ) -> tuple[_Array, _Array]: ...
    def crf_backward(
        self,
        emissions: _Array,
        transitions: _Array,
        start: _Array,
        end: _Array,
        lengths: _Array,
        log_partitions: _Array,
        alphas: _Array,
        weights: _Array,
    ) -> tuple[_Array, _Array]: ...
    def crf_decode(
        self,
        emissions: _Array,
        transitions: _Array,
        start: _Array,
        end: _Array,
        lengths: _Array,
        padding: int,
    ) -> tuple[_Array, _Array]: ...
    def ctc_forward(
        self,
        logits: _Array,
        targets: _Array,
        lengths: _Array,
        target_lengths: _Array,
        blank: int,
    ) -> tuple[_Array, _Array, _Array]: ...
    def ctc_backward(
        self,
        logits: _Array,
        targets: _Array,
        lengths: _Array,
        target_lengths: _Array,
        blank: int,
        losses: _Array,
        normalizers: _Array,
        alphas: _Array,
        weights: _Array,
    ) -> _Array: ...
    def gather_rows(self, table: _Array, ids: _Array, precision: str = "float32") -> _Array: ...
    def sum_rows(self, indices: _Array, values: _Array) -> tuple[_Array, _Array]: ...
    def cumsum(self, x: _Array, axis: int, reverse: bool) -> _Array: ...
    def take_along_axis(self, x: _Array, indices: _Array, axis: int) -> _Array: ...
    def add_along_axis(self, dy: _Array, indices: _Array, axis: int, count: int) -> _Array: ...
    def add_rows(self, dy: _Array, rows: _Array, shape: Sequence[int], axes: int) -> _Array: ...
    def order_rows(self, x: _Array, count: int, descending: bool) -> _Array: ...
    def dropout(self, x: _Array, n: int, key: int, threshold: int, factor: float) -> _Array: ...
    def batch_norm_forward(
        self,
        x: _Array,
        mask: _Array | None,
        weight: _Array | None,
        bias: _Array | None,
        epsilon: float,
    ) -> tuple[_Array, _Array, _Array, _Array]: ...
    def batch_norm_backward(
        self,
        x: _Array,
        mask: _Array | None,
        weight: _Array | None,
        means: _Array,
        factors: _Array,
        dy: _Array,
    ) -> tuple[_Array, _Array]: ...
    def layer_norm_forward(
        self, x: _Array, weight: _Array | None, bias: _Array | None, epsilon: float
    ) -> tuple[_Array, _Array, _Array]: ...
    def layer_norm_backward(
        self, x: _Array, weight: _Array | None, means: _Array, factors: _Array, dy: _Array
    ) -> tuple[_Array, _Array, _Array]: ...
    def sum_of_squares(self, x: _Array) -> float: ...
    def recurrence_forward(
        self,
        cell: Cell,
        x: _Array,
        initial: Sequence[_Array],
        weights: LayerWeights[_Array],
        lengths: _Array | None,
        reverse: bool,
        save: bool,
        named: Sequence[int],
        precision: str,
    ) -> tuple[_Array, list[_Array], Any, _Array | None, list[_Array]]: ...
    def recurrence_backward(
        self,
        cell: Cell,
        saved: _Array,
        state: _Array,
        unprojected: _Array | None,
        x: _Array,
        weights: LayerWeights[_Array],
        d_output: _Array | None,
        d_states: Sequence[_Array],
        lengths: _Array | None,
        reverse: bool,
        wants_d_x: bool,
        precision: str,
    ) -> tuple[Any, ...]: ...
    def bidirectional_forward(
        self,
        cell: Cell,
        x: Sequence[_Array],
        initial: Sequence[Sequence[_Array]],
        weights: Sequence[LayerWeights[_Array]],
        lengths: _Array | None,
        save: bool,
        named: Sequence[int],
        precision: str,
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]: ...
    def bidirectional_backward(
        self,
        cell: Cell,
        saved: Sequence[_Array],
        state: Sequence[_Array],
        unprojected: Sequence[_Array | None],
        x: Sequence[_Array],
        weights: Sequence[LayerWeights[_Array]],
        d_output: Sequence[_Array | None],
        d_states: Sequence[Sequence[_Array]],
        lengths: _Array | None,
        wants_d_x: bool,
        precision: str,
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]: ...
    def sample(
        self, logits: _Array, uniforms: _Array, temperature: float, top_k: int, top_p: float
    ) -> tuple[_Array, bool]: ...

float32: _Precision
float64: _Precision

def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def instruction_set() -> str: ...
def bfloat16_unit() -> str: ...
def use_instruction_set(name: str) -> None: ...
def peak() -> float: ...
