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
    """Nothing overlaps, every edge ends at its nodes and passes all else, all is inside."""
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
    for text, box in diagram.texts:
        for edge in diagram.edges:
            for segment in segments(edge):
                assert not crosses(segment, box), (text, edge)


def check_wires(diagram):
    """Wires of different values cross, but never lie on each other."""
    nets = {}
    gates = {node.name for node in diagram.nodes if node.kind == "gate"}
    last = [(edge.target, edge.points[-2:]) for edge in diagram.edges if edge.target in gates]
    joined = {name for name, line in last if last.count((name, line)) == 2}
    for edge in diagram.edges:
        nets.setdefault(edge.source, []).append(edge)
    for a, b in itertools.combinations(nets.values(), 2):
        for edge, edge_2 in itertools.product(a, b):
            if {edge.target, edge_2.target} <= joined:  # one wire carries both
                continue
            for s, s2 in itertools.product(segments(edge), segments(edge_2)):
                shared = overlap(box_of(s, 0.5), box_of(s2, 0.5))
                is_parallel = (s[0][0] == s[1][0]) == (s2[0][0] == s2[1][0])
                assert not (shared and is_parallel), (edge, edge_2)


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


def test_an_lstm_is_drawn_as_people_know_it():
    diagram = plot.cell("lstm")
    nodes = {node.name: node for node in diagram.nodes}
    gates = [node for node in diagram.nodes if node.kind == "gate"]
    assert {gate.label for gate in gates} == {"f = σ", "i = σ", "g = tanh", "o = σ"}
    assert len({gate.box[1] for gate in gates}) == 1  # in a row
    lefts = {name: nodes[name].box[0] for name in "figo"}
    assert lefts["f"] < lefts["i"] < lefts["g"] < lefts["o"]
    (c,) = {nodes[name].box[1] for name in ("c_before", "c_after")}
    assert c < min(gate.box[1] for gate in gates)  # the memory runs above, from left to right
    assert nodes["c_before"].box[2] < lefts["f"] < lefts["o"] < nodes["c_after"].box[0]
    assert nodes["x"].box[1] > max(gate.box[3] for gate in gates)  # x at the bottom
    assert nodes["h_above"].box[3] < c  # h above
    texts = [text for text, _ in diagram.texts]
    for equation in (
        "i = σ(W_i x_t + U_i h_t−1 + b_i)",
        "c_t = f ⊙ c_t−1 + i ⊙ g",
        "h_t = o ⊙ tanh(c_t)",
    ):
        assert equation in texts
        assert equation in diagram.description
    assert not any("=" in text for text, _ in plot.cell("lstm", equations=False).texts)


def test_equations_have_the_author_s_names_and_precedence():
    texts = [text for text, _ in plot.cell(three_states).texts]
    assert "written = input_gate ⊙ new" in texts
    assert "read = max(memory_t, slow_memory_t) / (1 + abs(slow_memory_t))" in texts
    assert (
        "new = tanh(W_candidate x_t + b_candidate + reset ⊙ (U_candidate h_t−1 + b′_candidate))"
    ) in texts
    assert "h_t = (1 − z) ⊙ n + z ⊙ h_t−1" in [text for text, _ in plot.cell("gru").texts]


def test_a_layer_s_cell_is_drawn_and_saved(tmp_path):
    diagram = plot.cell(nn.GRU(3, 4), tmp_path / "gru.svg", title="A gated < unit")
    assert (tmp_path / "gru.svg").read_text(encoding="utf-8") == diagram.svg
    assert diagram._repr_svg_() == diagram.svg == plot.cell("gru", title="A gated < unit").svg
    assert diagram.title == "A gated < unit"
    with pytest.raises(ValueError, match=r"gru\.png: a diagram is written as .svg"):
        diagram.save(tmp_path / "gru.png")


def test_what_cannot_be_drawn_is_refused():
    @cell(gates="a", state="h", fused=False)
    def untraced(a, h):
        return tanh(a)

    with pytest.raises(ValueError, match=r"'untraced' was declared with fused=False, so it has no"):
        plot.cell(untraced)
    with pytest.raises(ValueError, match="'lst' is not one of rnn, rnn_relu, lstm"):
        plot.cell("lst")
    with pytest.raises(ValueError, match="'nested_lstm' has no equations to draw"):
        plot.cell(nn.Recurrent("nested_lstm", 3, 4))


# Unrolled networks


def sources(diagram, target):
    return {edge.source for edge in diagram.edges if edge.target == target}


@pytest.mark.parametrize("shape", ["one-to-many", "many-to-one", "many-to-many", "encoder-decoder"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_shape_is_drawn_without_overlap(shape, num_layers, bidirectional):
    if bidirectional and shape == "one-to-many":
        return
    diagram = plot.unrolled(shape, steps=3, num_layers=num_layers, bidirectional=bidirectional)
    check(diagram)
    kinds = [node.kind for node in diagram.nodes]
    read = {"one-to-many": 1, "encoder-decoder": 4}.get(shape, 3)  # a decoder reads a start
    assert kinds.count("input") == read
    assert kinds.count("output") == (1 if shape == "many-to-one" else 3)
    cells = 3 * num_layers * (2 if bidirectional else 1)
    assert kinds.count("cell") == cells + (3 * num_layers if shape == "encoder-decoder" else 0)


def test_arrows_carry_states_up_and_to_the_right():
    diagram = plot.unrolled(inputs=list("hel"), outputs=list("ell"), num_layers=2)
    assert sources(diagram, "cell_1_l0") == {"x_1"}
    assert sources(diagram, "cell_2_l1") == {"cell_1_l1", "cell_2_l0"}
    assert sources(diagram, "y_3") == {"cell_3_l1"}
    assert [n.label for n in diagram.nodes if n.kind in ("input", "output")] == list("heelll")


def test_two_directions_are_joined_at_their_ends():
    diagram = plot.unrolled("many-to-one", steps=3, bidirectional=True)
    assert sources(diagram, "cell_2_l0_reverse") == {"x_2", "cell_3_l0_reverse"}
    (joint,) = sources(diagram, "y_3")
    assert sources(diagram, joint) == {"cell_3_l0", "cell_1_l0_reverse"}


def test_a_decoder_reads_what_it_wrote():
    diagram = plot.unrolled(
        "encoder-decoder", inputs=["ein", "Hund"], outputs=["a", "dog", "<end>"], cell="GRU"
    )
    assert sources(diagram, "cell_3_l0") == {"cell_2_l0", "x_3"}
    assert sources(diagram, "cell_4_l0") == {"cell_3_l0", "y_3"}
    assert [node.label for node in diagram.nodes if node.kind == "output"] == ["a", "dog", "<end>"]
    fills = re.findall(r'<rect[^>]*fill="(#[^"]*)" stroke="#1f2933"', diagram.svg)
    assert fills[0] == fills[1] != fills[2] == fills[4]  # encoder and decoder have other weights


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("many", {}, "no shape 'many'; the shapes are one-to-many, many-to-one, many-to-many, enc"),
        ("many-to-many", {"steps": 3, "inputs": "ab"}, "2 labels of inputs for 3 steps"),
        ("many-to-one", {"outputs": "ab"}, "2 labels of outputs for 1 step"),
        ("many-to-many", {"steps": 0}, "steps is 0; 1 to 60 can be drawn"),
        ("many-to-many", {"inputs": []}, "steps is 0; 1 to 60 can be drawn"),
        ("many-to-many", {"num_layers": 99}, "num_layers 99; at most 12 are drawn"),
        ("many-to-many", {"output_steps": 2}, "output_steps is for the shape encoder-decoder"),
        ("one-to-many", {"bidirectional": True}, "cannot be read from right to left"),
    ],
)
def test_unrolled_refuses_what_it_cannot_draw(shape, options, message):
    with pytest.raises(ValueError, match=message):
        plot.unrolled(shape, **options)


# Batches


def steps_of(diagram, stream, window):
    start = f"stream_{stream}_window_{window}_step_"
    return [node for node in diagram.nodes if node.name.startswith(start)]


def test_batches_are_those_of_batchify():
    text = "Once upon a time there was a small network."
    diagram = plot.batching(text, batch_size=3, window=4)
    check(diagram)
    batches = data.batchify(np.arange(len(text)), 3, 4)
    shown = [t for t, _ in diagram.texts]
    for window, stream in itertools.product(range(3), range(3)):
        steps = steps_of(diagram, stream + 1, window + 1)
        expected = [text[n] for n in batches[window].inputs[:, stream]]
        assert [step.label for step in steps] == [c.replace(" ", "·") for c in expected]
        boxes = {(n.box[0], n.box[2]) for n in steps}
        targets = [
            t
            for (t, box), (x0, x1) in itertools.product(diagram.texts, sorted(boxes))
            if x0 < box[0] < x1 and steps[0].box[1] + 17 < box[1] < steps[0].box[3]
        ]
        followed = [text[n].replace(" ", "·") for n in batches[window].targets[:, stream]]
        assert sorted(targets) == sorted(followed)
    assert "the text: 43 tokens, as 3 streams of 14 (1 left over)" in shown
    assert f"{len(batches) - 3} more" in shown
    carried = [e for e in diagram.edges if e.source == "stream_2_window_1_step_4"]
    assert [edge.target for edge in carried] == ["stream_2_window_2_step_1"]
    assert shown.count("cut") == shown.count("state") == 3
    assert shown.count("gradients") == 3


def test_windows_have_the_same_color_in_the_strip_and_in_streams():
    diagram = plot.batching("abcdefghijklmnop", batch_size=2, window=3)
    strip = re.findall(r'<rect x="[^>]*" y="38"[^>]*fill="(#[^"]*)"', diagram.svg)
    steps = re.findall(r'rx="2" fill="(#[^"]*)"', diagram.svg)
    assert strip[:3] == list(dict.fromkeys(steps)) == strip[4:7]


def test_many_streams_and_steps_leave_out_their_middle():
    words = [f"word{n}" for n in range(5000)]
    diagram = plot.batching(words, batch_size=20, window=50, max_windows=2)
    check(diagram)
    streams = {int(n.name.split("_")[1]) for n in diagram.nodes if n.kind == "step"}
    assert streams == {1, 2, 3, 20}
    assert [n.name.rpartition("_")[2] for n in steps_of(diagram, 1, 1)][-2:] == ["10", "50"]
    assert steps_of(diagram, 1, 2)[0].label == "word50"


@pytest.mark.parametrize("token", ["$x^", "<b>", "\x00", "漢字", "a very long token of many words"])
def test_any_token_is_shown(token):
    check(plot.batching([token] * 20, batch_size=2, window=4))
    check(plot.unrolled(inputs=[token] * 3, outputs=["y"] * 3))


def test_batching_refuses_too_short_a_text_and_no_windows():
    with pytest.raises(data.DataError, match="the text has 3 tokens, but one window of 2 parallel"):
        plot.batching("abc", batch_size=2, window=4)
    with pytest.raises(ValueError, match="max_windows"):
        plot.batching("abc" * 9, batch_size=2, window=4, max_windows=0)
