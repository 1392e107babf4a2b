"""Diagrams of cells, networks unrolled in time, and batches: what is in them, and where."""

import itertools
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora import cell, data, nn, plot
from anaphora import equations as eq
from anaphora.cells import CELLS, Gate, zoneout
from anaphora.equations import maximum, sigmoid, tanh

# What holds for every diagram


def overlap(a, b, margin=0.0):
    """Whether two boxes share more than their edges."""
    return (
        a[0] < b[2] - margin
        and b[0] < a[2] - margin
        and a[1] < b[3] - margin
        and b[1] < a[3] - margin
    )


def on_edge(point, box, tolerance):
    """Whether a point is at the edge of a box, or that far outside."""
    x, y = point
    outer = (box[0] - tolerance, box[1] - tolerance, box[2] + tolerance, box[3] + tolerance)
    inner = (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1)
    is_within = outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]
    return is_within and not (inner[0] < x < inner[2] and inner[1] < y < inner[3])


def segments(edge):
    return list(itertools.pairwise(edge.points))


def box_of(segment, width=0.0):
    (x0, y0), (x1, y1) = segment
    return (min(x0, x1) - width, min(y0, y1) - width, max(x0, x1) + width, max(y0, y1) + width)


def crosses(segment, box):
    """Whether a horizontal or vertical segment runs through the inside of a box."""
    return overlap(box_of(segment, 0.1), (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1))


def check(diagram, reach=16.0):
    """Nothing overlaps, every edge ends at its nodes and passes all others, all is inside."""
    root = xml.etree.ElementTree.fromstring(diagram.svg)
    assert root.get("role") == "img"
    assert [child.text for child in root[:2]] == [diagram.title, diagram.description]
    width, height = float(root.get("width")), float(root.get("height"))
    nodes = {node.name: node for node in diagram.nodes}
    assert len(nodes) == len(diagram.nodes)
    boxes = [*(node.box for node in diagram.nodes), *(box for _, box in diagram.texts)]
    for box in boxes:
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= width
        assert box[3] <= height
    for a, b in itertools.combinations(diagram.nodes, 2):
        assert not overlap(a.box, b.box), (a, b)
    for (text, a), (other, b) in itertools.combinations(diagram.texts, 2):
        assert not overlap(a, b, margin=2), (text, other)
    for (text, a), node in itertools.product(diagram.texts, diagram.nodes):
        x, y = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2
        is_inside = node.box[0] < x < node.box[2] and node.box[1] < y < node.box[3]
        assert is_inside or not overlap(a, node.box, margin=1), (text, node)
        if is_inside:
            assert node.box[0] - 2 <= a[0] <= a[2] <= node.box[2] + 2, (text, node)
    for edge in diagram.edges:
        assert on_edge(edge.points[0], nodes[edge.source].box, reach), edge
        assert on_edge(edge.points[-1], nodes[edge.target].box, reach), edge
        for segment in segments(edge):
            assert segment[0][0] == segment[1][0] or segment[0][1] == segment[1][1], edge
            for node in diagram.nodes:
                assert not crosses(segment, node.box), (edge, node)


def check_wires(diagram):
    """Wires of different values cross, but never lie on each other; none runs through a text."""
    nets = {}
    gates = {node.name for node in diagram.nodes if node.kind == "gate"}
    last = [(edge.target, edge.points[-2:]) for edge in diagram.edges if edge.target in gates]
    joined = {name for name, line in last if last.count((name, line)) == 2}
    for edge in diagram.edges:
        nets.setdefault(edge.source, []).append(edge)
    for (one, a), (other, b) in itertools.combinations(nets.items(), 2):
        for edge, edge_2 in itertools.product(a, b):
            if {edge.target, edge_2.target} <= joined:  # one wire carries both
                continue
            for s, s2 in itertools.product(segments(edge), segments(edge_2)):
                shared = overlap(box_of(s, 0.5), box_of(s2, 0.5))
                is_parallel = (s[0][0] == s[1][0]) == (s2[0][0] == s2[1][0])
                assert not (shared and is_parallel), (edge, edge_2)
    for text, box in diagram.texts:
        for edge in diagram.edges:
            for segment in segments(edge):
                assert not crosses(segment, box), (text, edge)


# Cells


@cell(
    gates="input_gate forget_gate update reset candidate output_gate",
    state="h memory slow_memory",
    parameters="decay p_o",
)
def three_states(
    input_gate,
    forget_gate,
    update,
    reset,
    candidate,
    output_gate,
    h,
    memory,
    slow_memory,
    decay,
    p_o,
):
    input_gate, forget_gate, update = sigmoid(input_gate), sigmoid(forget_gate), sigmoid(update)
    reset = sigmoid(reset)
    new = tanh(candidate.x + reset * candidate.h)
    written = input_gate * new
    memory = forget_gate * memory + written
    slow_memory = slow_memory + update * (memory - slow_memory)
    read = maximum(memory, slow_memory) / (1 + eq.abs(slow_memory))
    h = sigmoid(output_gate + p_o * memory) * tanh(read * sigmoid(decay))
    return h, memory, slow_memory


@cell(gates="a b", state="h s")
def passes_a_state_on(a, b, h, s):
    h = 2 * sigmoid(2 * a) - 1 - b / (b * b + 1)
    return h, s


@cell(gates="a", state="h s r")
def states_of_states(a, h, s, r):
    return tanh(a), s * h + h, tanh(r)


DRAWN = [
    *CELLS.values(),
    zoneout(CELLS["lstm"], 0.25),
    three_states,
    passes_a_state_on,
    states_of_states,
]


def by_name(cells):
    return pytest.mark.parametrize("one", cells, ids=lambda c: c.name)


def text_as_number(text, weights):
    """The value of a label of constants and weights."""
    text = text.replace("−", "-").replace("⊙", "*").replace("σ", "sigmoid")
    text = re.sub(r"([\d)]) (?=[a-zA-Z(])", r"\1 * ", text)
    functions = {name: getattr(eq, name) for name in eq.FUNCTIONS if hasattr(eq, name)}
    return eval(text, {**functions, "max": maximum, "min": eq.minimum, **weights})


def read_off(diagram, arguments):
    """The new states, computed from nothing but what the diagram shows."""
    nodes = {node.name: node for node in diagram.nodes}
    into = {}
    for edge in diagram.edges:
        into.setdefault(edge.target, []).append(edge)
    inner = [node.box for node in diagram.nodes]
    marks = [
        (text, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        for text, box in diagram.texts
        if text in ("+", "−", "÷") and not any(overlap(box, other) for other in inner)
    ]

    def mark(edge):
        x, y = edge.points[-1]
        distance, text = min(
            (abs(x - mx) + abs(y - my), text) for text, mx, my in [*marks, ("", 1e9, 0)]
        )
        return text if distance < 25 else ""

    def symbol(node):
        return node.label.partition(" = ")[2] or node.label

    def value(name):
        node = nodes[name]
        if node.kind == "state":
            return arguments[name.removesuffix("_before")]
        if node.kind == "gate":
            gate = arguments[node.label.partition(" = ")[0]]
            half = {"W x": "x", "U h": "h"}.get(symbol(node))
            reads = {edge.source for edge in into[name]}
            assert "x" in reads or half == "h"
            number = getattr(gate, half) if half else gate.x + gate.h
            return number if half or symbol(node) == "W x + U h" else apply(symbol(node), number)
        operands = [value(edge.source) for edge in into.get(name, [])]
        if node.kind == "function":
            return apply(symbol(node), *operands)
        signs = [mark(edge) for edge in into[name]]
        a, b = operands
        if symbol(node) == "−":
            assert sorted(signs) == ["+", "−"]
            return a - b if signs[1] == "−" else b - a
        if symbol(node) == "÷":
            return a / b if signs[1] == "÷" else b / a
        return {"+": a + b, "×": a * b, "max": max(a, b), "min": min(a, b)}[symbol(node)]

    def apply(label, *operands):
        if label in ("σ", "−"):
            return sigmoid(*operands) if label == "σ" else -operands[0]
        if label in eq.FUNCTIONS:
            return getattr(eq, label)(*operands)
        for sign, function in (("×", "*"), ("+", "+"), ("−", "-"), ("÷", "/")):
            if label.startswith(f"{sign} "):
                return eval(f"a {function} b", {"a": operands[0], "b": weight(label[2:])})
            if label.endswith(f" {sign}"):
                return eval(f"b {function} a", {"a": operands[0], "b": weight(label[:-2])})
        if label.startswith(("max ", "min ")):
            return {"max": max, "min": min}[label[:3]](operands[0], weight(label[4:]))
        return weight(label)

    def weight(text):
        return text_as_number(text, arguments)

    found = {}
    for node in diagram.nodes:
        if node.name.endswith("_after"):
            (edge,) = into[node.name]
            found[node.name.removesuffix("_after")] = value(edge.source)
    return found


def check_that_it_shows(diagram, one, tolerance=1e-9):
    rng = np.random.default_rng(1)
    inputs = one.program.inputs
    gates = {gate: Gate(*rng.standard_normal(2)) for gate in one.gates}
    for gate, halves in gates.items():  # what has no weights is 0
        x, h = gate in one.input_gates, gate in one.recurrent_gates
        gates[gate] = Gate(halves.x if x else 0.0, halves.h if h else 0.0)
    rest = {name: float(rng.standard_normal()) for name in (*one.states, *one.parameters)}
    given = [gates[g].x + gates[g].h if g in inputs else gates[g] for g in one.gates]
    expected = one(*given, *rest.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = read_off(diagram, gates | rest)
    assert [*found] == [*one.states]
    np.testing.assert_allclose(list(found.values()), expected, rtol=tolerance, atol=tolerance)


@by_name(DRAWN)
def test_a_cell_can_be_read_off_its_diagram(one):
    diagram = plot.cell(one)
    check(diagram)
    check_wires(diagram)
    check_that_it_shows(diagram, one)


@given(st.data())
@settings(max_examples=60)
def test_any_cell_can_be_read_off_its_diagram(random_cells, data):
    one, _ = data.draw(random_cells)
    diagram = plot.cell(one)
    check(diagram)
    check_wires(diagram)
    check_that_it_shows(diagram, one, tolerance=2e-3)  # constants are shown with 4 digits
