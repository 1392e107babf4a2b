"""Prints a network as a C99 file and its header."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from anaphora.equations import Operand, Program
from anaphora.interop.c.header import header_of
from anaphora.interop.network import Layer, Network, in_8_bits
from anaphora.tensor import Array

_RESERVED = """
    asm auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while
    h_gates integers state u unprojected x x_gates
"""
"""Keywords, and what a layer's function calls its own."""

_BLOCK = 64  # of the outputs of a weight, as in runtime.c


class Source(NamedTuple):
    """A model in C, and its figures.

    Attributes:
        header: The text of the header.
        code: The text of the C99 file.
        weight_bytes: Of all weights.
        state_bytes: Of the struct of the state.
        stack_bytes: Of the arrays of a step, and a little more for what the compiler keeps.
        products: The multiply-adds of a step.
        states: The members of that struct and their sizes, in its order, four bytes a number.
    """

    header: str
    code: str
    weight_bytes: int
    state_bytes: int
    stack_bytes: int
    products: int
    states: list[tuple[str, int]]


def source_of(network: Network, name: str) -> Source:
    """A network in C, whose names begin with a name.

    Raises:
        ValueError: the name is not an identifier of C, or a weight cannot be in 8 bits.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name in _RESERVED.split():
        raise ValueError(
            f"{name!r:.80} begins all names of the C file, and must be a letter followed by "
            "letters, digits and underscores (and no keyword): give the file another name"
        )
    return _Printer(network, name).source()


class _Printer:
    """Prints one network."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.upper = name.upper()
        self.arrays: list[str] = []
        self.weight_bytes = 0
        self.needs = ["int8" if network.int8 else "float32"]
        self.needs.append("int8_product" if network.int8 else "float32_product")

    def source(self) -> Source:
        net = self.network
        states = self._states()
        layers = [self._layer(k, layer) for k, layer in enumerate(net.layers)]
        step, step_bytes = self._step()
        reset = self._reset(states)
        sampler = self._is_language_model
        if sampler:
            self.needs += ["softmax", "sample"]
        state_bytes = sum(4 * size for _, size, _ in states)
        figures = {
            "weight_bytes": self.weight_bytes,
            "state_bytes": state_bytes,
            "stack_bytes": step_bytes + max(map(self._stack_of, net.layers)) + 512,
            "products": net.products(),
        }
        text = re.sub(
            r"\b(model|MODEL)_",
            lambda match: f"{self.name if match[1] == 'model' else self.upper}_",
            _sections(self.needs),
        )
        parts = [
            f"/* {self._title()}\n   {self.name}.h says how it is used. */",
            f'#include "{self.name}.h"',
            text,
            "\n".join(self.arrays),
            *layers,
            reset,
            step,
        ]
        if sampler:
            parts.append(
                f"void {self.name}_softmax(const float *scores, float *probabilities)\n{{\n"
                f"    {self.name}_shares(scores, probabilities, {self.upper}_OUTPUT_SIZE);\n}}"
            )
        if net.labels:
            parts.append(self._labels())
        return Source(
            self._header(states, figures),
            "\n\n".join(map(str.strip, parts)) + "\n",
            **figures,
            states=[(name, size) for name, size, _ in states],
        )

    def _header(self, states: Sequence[tuple[str, int, str]], figures: Mapping[str, int]) -> str:
        members = [
            f"    {'uint32_t' if start == '0u' else 'float'} {state}[{size}];"
            for state, size, start in states
        ]
        return header_of(
            self.network, self.name, self._title(), self._signature(), members, figures
        )

    @property
    def _is_language_model(self) -> bool:
        return self.network.kind == "language model"

    def _title(self) -> str:
        net = self.network
        sizes = f"{len(net.layers)} x {net.layers[0].sizes[1]} {net.layers[0].cell.name}"
        weights = "int8" if net.int8 else "float32"
        return f"{self.name}: {net.kind}, {sizes}, weights in {weights}; written by Anaphora."

    # Weights

    def _array(
        self, name: str, values: Array, kind: str = "float", *, aligned: bool = False
    ) -> None:
        flat = values.ravel()
        self.weight_bytes += {"float": 4, "int8_t": 1, "double": 8}[kind] * flat.size
        numbers = [f"{n}f" for n in flat] if kind == "float" else list(map(str, flat.tolist()))
        place = f" {self.upper}_ALIGNED" if aligned else ""
        per_line = 24 if kind == "int8_t" else 8
        lines = [
            "    " + ", ".join(numbers[k : k + per_line]) + ","
            for k in range(0, len(numbers), per_line)
        ]
        self.arrays.append(
            f"static const {kind} {name}[{flat.size}]{place} = {{\n" + "\n".join(lines) + "\n};"
        )

    def _weight(self, name: str, weight: Array) -> None:
        """A weight [N, K] for products."""
        kind, inputs = "float", 1
        if self.network.int8:
            weight, scales = in_8_bits(weight)
            self._array(f"{name}_scales", scales)
            kind, inputs = "int8_t", 4
        blocks = [
            _interleaved(weight[n : n + _BLOCK], inputs) for n in range(0, len(weight), _BLOCK)
        ]
        self._array(name, np.concatenate(blocks), kind, aligned=True)

    def _product(self, name: str, weight: Array, x: str, y: str) -> str:
        N, K = weight.shape
        if self.network.int8:
            arguments = f"{name}, {name}_scales, {x}, integers, {y}"
        else:
            arguments = f"{name}, {x}, {y}"
        return f"    {self.name}_product({arguments}, {K}, {N});"

    # State

    def _states(self) -> list[tuple[str, int, str]]:
        """The members of the state: name, size, and the initial value."""
        found = []
        for k, layer in enumerate(self.network.layers):
            for n, state in enumerate(layer.cell.states):
                size = layer.sizes[2] if n == 0 else layer.sizes[1]
                found.append((f"{_identifier(state)}_l{k}", size, "0.0f"))
        N = self.network.layers[-1].sizes[2]
        if self.network.pooling == "mean":
            found += [("total", N, "0.0f"), ("steps", 1, "0u")]
        if self.network.pooling == "max":
            self.needs.append("bits")
            found.append(("maximum", N, f"{self.name}_from_bits(0xff800000u)"))
        return found

    def _reset(self, states: Sequence[tuple[str, int, str]]) -> str:
        lines = [
            f"    for (int n = 0; n < {size}; n++)\n        state->{name}[n] = {value};"
            for name, size, value in states
        ]
        return f"void {self.name}_reset({self.name}_state *state)\n{{\n" + "\n".join(lines) + "\n}"

    # A layer

    def _stack_of(self, layer: Layer) -> int:
        """The bytes of the arrays of a layer."""
        inputs, hidden, size = layer.sizes
        gates = len(layer.cell.input_gates) + len(layer.cell.recurrent_gates)
        floats = gates * hidden + ("weight_hr" in layer.weights) * hidden
        quantized = 4 * _BLOCK + _fours(max(inputs, hidden, size))
        return 4 * floats + (quantized if self.network.int8 else 0)

    def _layer(self, k: int, layer: Layer) -> str:
        inputs, hidden, size = layer.sizes
        cell, program = layer.cell, layer.trace.program
        lines = [
            f"/* Layer {k}, {cell.name}: {inputs} -> {size}. */",
            f"static void {self.name}_layer_{k}({self.name}_state *restrict state, "
            "const float *restrict x)",
            "{",
        ]
        x_size, h_size = (len(g) * hidden for g in (cell.input_gates, cell.recurrent_gates))
        arrays = [f"{half}_gates[{n}]" for half, n in (("x", x_size), ("h", h_size)) if n]
        lines.append(f"    float {', '.join(arrays)};")
        projects = "weight_hr" in layer.weights
        if projects:
            lines.append(f"    float unprojected[{hidden}];")
        if self.network.int8:
            lines.append(
                f"    int8_t integers[{_fours(max(inputs, hidden, size))}] {self.upper}_ALIGNED;"
            )
        for name, weight in layer.weights.items():
            if weight.size:
                (self._weight if weight.ndim == 2 else self._array)(f"{name}_l{k}", weight)
        for name, values in layer.parameters.items():
            self._array(f"{_identifier(name)}_l{k}", values)
        first = f"state->{_identifier(cell.states[0])}_l{k}"
        if x_size:
            lines.append(
                self._product(f"weight_ih_l{k}", layer.weights["weight_ih"], "x", "x_gates")
            )
        else:
            lines.append("    (void)x;")
        if h_size:
            lines.append(
                self._product(f"weight_hh_l{k}", layer.weights["weight_hh"], first, "h_gates")
            )
        lines.append(f"    for (int u = 0; u < {hidden}; u++) {{")
        lines += self._inputs(k, layer)
        lines += self._equations(program)
        for n, state in enumerate(cell.states):
            target = f"state->{_identifier(state)}_l{k}"
            if n == 0 and projects:
                target = "unprojected"
            lines.append(f"        {target}[u] = {self._operand(program, program.outputs[n])};")
        lines.append("    }")
        if projects:
            lines.append(
                self._product(f"weight_hr_l{k}", layer.weights["weight_hr"], "unprojected", first)
            )
        if layer.norm is not None:
            self.needs.append("layer_norm")
            self._array(f"norm_weight_l{k}", layer.norm[0])
            self._array(f"norm_bias_l{k}", layer.norm[1])
        return "\n".join([*lines, "}"])

    def _inputs(self, k: int, layer: Layer) -> Iterator[str]:
        """The values that the equations read: gates, states, parameters."""
        program, hidden = layer.trace.program, layer.sizes[1]
        read = program.reads()
        names = _c_names(program)
        gates = layer.trace.gate_inputs
        for number, name in enumerate(program.inputs):
            if number not in read:
                continue
            if number >= len(gates):
                own = f"{_identifier(name)}_l{k}[u]"
                right = own if name in layer.parameters else f"state->{own}"
            else:
                halves = []
                for half, block in (("h", gates[number].h), ("x", gates[number].x)):
                    if block is None:
                        continue
                    at = f"[{block * hidden} + u]" if block else "[u]"
                    bias = f"bias_{'hh' if half == 'h' else 'ih'}"
                    value = f"{half}_gates{at}"
                    if bias in layer.weights:
                        value = f"({value} + {bias}_l{k}{at})"
                    halves.append(value)
                right = "\n            + ".join(halves)
                if len(halves) == 1 and right.startswith("("):
                    right = right[1:-1]
            yield f"        const float {names[number]} = {right};"

    def _equations(self, program: Program) -> Iterator[str]:
        names = _c_names(program)
        infix = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
        for number, (function, operands) in enumerate(
            ((i.function, i.operands) for i in program.instructions), start=len(program.inputs)
        ):
            values = [self._operand(program, operand) for operand in operands]
            if function in infix:
                right = f"{values[0]} {infix[function]} {values[1]}"
            elif function == "negative":
                right = f"-{values[0]}" if values[0][0] != "-" else values[0][1:]
            else:
                self.needs.append(function)
                right = f"{self.name}_{function}({', '.join(values)})"
            yield f"        const float {names[number]} = {right};"

    def _operand(self, program: Program, operand: Operand) -> str:
        if type(operand) is int:
            return _c_names(program)[operand]
        return f"{np.float32(operand)}f"

    # A step

    def _step(self) -> tuple[str, int]:
        """The function of a step, and the bytes of its arrays."""
        net, name = self.network, self.name
        N, size = net.layers[-1].sizes[2], net.output_size
        body, declared, used = [], [], 0
        x = "x"
        if net.table is not None:
            size_x = net.input_size
            declared.append(f"    float embedded[{size_x}];")
            used += 4 * size_x
            body.append(
                f"    if (token < 0 || token >= {self.upper}_VOCABULARY_SIZE)\n        return -1;"
            )
            body += [f"    for (int n = 0; n < {size_x}; n++)", f"        {self._lookup()}"]
            x = "embedded"
        elif net.moments is not None:
            self._array("input_mean", net.moments[0], "double")
            self._array("input_deviation", net.moments[1], "double")
            declared.append(f"    float standardized[{net.input_size}];")
            used += 4 * net.input_size
            body += [
                f"    for (int n = 0; n < {net.input_size}; n++)",
                "        standardized[n] = (float)(((double)x[n] - input_mean[n]) / "
                "input_deviation[n]);",
            ]
            x = "standardized"
        for k, layer in enumerate(net.layers):
            body.append(f"    {name}_layer_{k}(state, {x});")
            x = f"state->{_identifier(layer.cell.states[0])}_l{k}"
            if layer.norm is not None:
                declared.append(f"    float normalized_l{k}[{layer.sizes[2]}];")
                used += 4 * layer.sizes[2]
                body.append(
                    f"    {name}_normalize({x}, norm_weight_l{k}, norm_bias_l{k}, "
                    f"{np.float32(layer.epsilon)}f, normalized_l{k}, {layer.sizes[2]});"
                )
                x = f"normalized_l{k}"
        if net.pooling == "mean":
            declared.append(f"    float mean[{N}];")
            used += 4 * N
            body += [
                "    state->steps[0] += 1u;",
                f"    for (int n = 0; n < {N}; n++) {{",
                f"        state->total[n] += {x}[n];",
                "        mean[n] = state->total[n] / (float)state->steps[0];",
                "    }",
            ]
            x = "mean"
        if net.pooling == "max":
            body += [
                f"    for (int n = 0; n < {N}; n++)",
                f"        state->maximum[n] = {x}[n] > state->maximum[n] ? {x}[n] "
                ": state->maximum[n];",
            ]
            x = "state->maximum"
        if net.output is None:
            body += [f"    for (int n = 0; n < {size}; n++)", f"        y[n] = {x}[n];"]
        else:
            weight, bias = net.output
            output = "embedding" if net.tied else "output_weight"
            if not net.tied:
                self._weight(output, weight)
            if net.int8:
                declared.append(f"    int8_t integers[{_fours(N)}] {self.upper}_ALIGNED;")
                used += _fours(N) + 4 * _BLOCK
            body.append(self._product(output, weight, x, "y"))
            if bias is not None:
                self._array("output_bias", bias)
                body += [f"    for (int n = 0; n < {size}; n++)", "        y[n] += output_bias[n];"]
        if net.answer == "softmax":
            self.needs.append("softmax")
            body.append(f"    {name}_shares(y, y, {size});")
        elif net.answer == "sigmoid":
            self.needs.append("sigmoid")
            body += [
                f"    for (int n = 0; n < {size}; n++)",
                f"        y[n] = {name}_sigmoid(y[n]);",
            ]
        if net.decoding is not None:
            self._array("target_scale", net.decoding[0], "double")
            self._array("target_mean", net.decoding[1], "double")
            body += [
                f"    for (int n = 0; n < {size}; n++)",
                "        y[n] = (float)((double)y[n] * target_scale[n] + target_mean[n]);",
            ]
        if net.table is not None:
            body.append("    return 0;")
        return "\n".join([self._signature(), "{", *declared, *body, "}"]), used

    def _signature(self) -> str:
        if self.network.table is not None:
            return f"int {self.name}_step({self.name}_state *state, int32_t token, float *y)"
        return f"void {self.name}_step({self.name}_state *state, const float *x, float *y)"

    def _lookup(self) -> str:
        """Reads the vector of a token; the table is stored as a weight."""
        assert self.network.table is not None
        V, size = self.network.table.shape
        self._weight("embedding", self.network.table)
        first = f"token / {_BLOCK} * {_BLOCK}"
        width = f"({V} - {first} < {_BLOCK} ? {V} - {first} : {_BLOCK})"
        at = f"{first} * {size} + n * {width} + token % {_BLOCK}"
        if self.network.int8:
            at = f"{first} * {_fours(size)} + (n / 4 * {width} + token % {_BLOCK}) * 4 + n % 4"
        number = f"embedding[{at}]"
        if self.network.int8:
            number = f"(float){number}\n            * embedding_scales[token]"
        return f"embedded[n] = {number};"

    def _labels(self) -> str:
        lines = [f"    {_string(label)}," for label in self.network.labels]
        return (
            f"const char *const {self.name}_labels[{len(lines)}] = {{\n" + "\n".join(lines) + "\n};"
        )


def _fours(size: int) -> int:
    """A number of inputs, rounded up to fours."""
    return -(-size // 4) * 4


def _interleaved(weight: Array, inputs: int) -> Array:
    """A weight [N, K] as [K / inputs, N, inputs], with zeros where K is no multiple of them."""
    N, K = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -K % inputs)))
    return padded.reshape(N, -1, inputs).transpose(1, 0, 2).ravel()


def _identifier(name: str) -> str:
    """A name of the author's as C has it: without characters that C does not have."""
    plain = "".join(c if c.isascii() else f"u{ord(c):04x}" for c in name.replace(".", "_"))
    primes = plain.count("'")
    plain = plain.replace("'", "")
    return plain + (f"_{primes}" if primes else "")


@functools.lru_cache(maxsize=64)
def _c_names(program: Program) -> list[str]:
    """The names of a program's values in C, each once, none that C or a layer uses."""
    taken = set(_RESERVED.split())
    names = []
    for name in map(_identifier, program.names):
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def _string(text: str) -> str:
    """A string literal of its UTF-8 bytes."""
    escapes = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
    return (
        '"'
        + "".join(
            escapes.get(byte, chr(byte)) if 32 <= byte < 127 else f"\\{byte:03o}"
            for byte in text.encode("utf-8", errors="surrogateescape")
        )
        + '"'
    )


def _sections(names: Sequence[str]) -> str:
    """The text of sections of runtime.c, and of those that they need, in its order."""
    text = resources.files(__package__).joinpath("runtime.c").read_text("utf-8")
    parts = re.split(r"/\* section (\w+):(.*?) \*/\n", text)[1:]
    needs = {name: needed.split() for name, needed in zip(parts[::3], parts[1::3], strict=True)}
    bodies = dict(zip(parts[::3], parts[2::3], strict=True))
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += needs[name]
    return "\n".join(body.strip() + "\n" for name, body in bodies.items() if name in wanted)
