"""The data of every function of `anaphora.plot`."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from anaphora import cell, nn, ops, plot, random
from anaphora.artifact import ModelDirectory
from anaphora.cells import CELLS
from anaphora.data import BPETokenizer, CharacterTokenizer, WordTokenizer
from anaphora.equations import sigmoid, tanh
from anaphora.models import LanguageModel
from anaphora.tensor import Tensor, no_grad
from anaphora.tensor.graph import recorded_graph

T, B, I, H = 5, 3, 4, 7


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, I))


def test_data_need_no_matplotlib_and_figures_explain_that_it_is_missing():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import anaphora.plot as plot\n"
        "picture = plot.values({'h': [[1.0, 2.0]]})\n"
        "print(picture.data['h'])\n"
        "try: picture.figure\n"
        "except ImportError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = '[[1. 2.]]\npictures need an extra: pip install "anaphora[plot]"\n'
    assert done.stdout == expected


# Losses


def test_losses_come_from_model_directories_and_records(tmp_path):
    directory = ModelDirectory.create(tmp_path / "run")
    directory.save({}, {}, {"w": np.zeros(1)})
    for step, loss in ((10, 2.0), (20, float("nan"))):
        directory.append_metrics({"kind": "train", "step": step, "loss": loss})
    directory.append_metrics({"kind": "evaluation", "step": 20, "loss": 1.5})
    data = plot.losses({"a": directory.path, "b": directory.read_metrics()}).data
    for name in "ab":
        np.testing.assert_array_equal(data[name]["train_step"], [10, 20])
        np.testing.assert_array_equal(data[name]["train_loss"], [2.0, np.nan])
        np.testing.assert_array_equal(data[name]["validation_step"], [20])
        np.testing.assert_array_equal(data[name]["validation_loss"], [1.5])


@pytest.mark.parametrize(
    ("figures", "label"),
    [
        ([{"bits_per_token": 4.3, "perplexity": 20.1}] * 2, "loss, nats a token"),
        ([{"mean_squared_error": 3.0}] * 2, "mean squared error"),
        ([{"mean_squared_error": 3.0}, {"bits_per_token": 4.3}], "loss"),
        ([{}, {}], "loss"),
    ],
)
def test_losses_are_labelled_by_their_kind(figures, label):
    pytest.importorskip("matplotlib")
    records = [{"kind": "train", "step": 1, "loss": 3.0, **more} for more in figures]
    picture = plot.losses({"a": records[:1], "b": records[1:]})
    assert picture.figure.axes[0].get_ylabel() == label


def test_losses_refuse_no_runs_and_runs_without_records():
    with pytest.raises(ValueError, match="losses: no runs were given"):
        plot.losses({})
    with pytest.raises(ValueError, match="losses: the run 'a' has no records of losses"):
        plot.losses({"a": []})


# States and gates


@pytest.mark.parametrize("name", CELLS)
def test_states_and_gates_equal_the_recorded_values(name, x, rng):
    layer = nn.Recurrent(name, I, H, num_layers=2, bidirectional=True, dtype=np.float64)
    _, _, recorded = layer.record(x)
    states, gates = plot.states(layer, x, row=1).data, plot.gates(layer, x, row=1).data
    assert {**states, **gates}.keys() == recorded.keys()
    assert {key.split("_l")[0] for key in states} == set(CELLS[name].states)
    for key, array in {**states, **gates}.items():
        np.testing.assert_array_equal(array, recorded[key][:, 1])


def test_batch_first_and_single_sequences_have_the_same_axes(x):
    layer = nn.GRU(I, H, dtype=np.float64)
    expected = plot.states(layer, x, row=2).data["h_l0"]
    np.testing.assert_allclose(plot.states(layer, x[:, 2]).data["h_l0"], expected, rtol=1e-12)
    layer.batch_first = True
    found = plot.states(layer, x.swapaxes(0, 1), row=2).data["h_l0"]
    np.testing.assert_array_equal(found, expected)


def test_plots_use_no_dropout_and_change_nothing(x):
    layer = nn.LSTM(I, H, num_layers=2, dropout=0.9, dtype=np.float64)
    before = random.get_state()
    first = plot.states(layer, x).data["h_l1"]
    assert layer.training
    assert random.get_state() == before
    np.testing.assert_array_equal(first, plot.states(layer.eval(), x).data["h_l1"])
    assert not layer.training


def test_a_custom_cell_has_its_own_names(x):
    @cell(gates="keep new", state="memory")
    def own(keep, new, memory):
        keep = sigmoid(keep)
        candidate = tanh(new)
        memory = keep * memory + (1 - keep) * candidate
        return memory

    layer = nn.Recurrent(own, I, H, dtype=np.float64)
    assert [*plot.states(layer, x).data] == ["memory_l0"]
    assert set(plot.gates(layer, x).data) == {"keep_l0", "new_l0", "candidate_l0"}


def test_gates_of_a_cell_that_was_not_traced_are_refused(x):
    @cell(gates="a", state="h", fused=False)
    def untraced(a, h):
        return tanh(a)

    layer = nn.Recurrent(untraced, I, H, dtype=np.float64)
    assert plot.states(layer, x).data["h_l0"].shape == (T, H)
    with pytest.raises(ValueError, match="gates of the cell 'untraced' have no names"):
        plot.gates(layer, x)


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        ({}, {}, "no values were given"),
        ({"h": np.ones(3)}, {}, r"'h' has the shape \(3,\); expected \[T, H\] or \[T, B, H\]"),
        ({"h": np.ones((0, 3))}, {}, "sequences of 0 steps"),
        ({"h": np.ones((2, 3)), "c": np.ones((4, 3))}, {}, "sequences of 2, 4 steps"),
        ({"h": np.ones((2, 3))}, {"labels": "abc"}, "2 steps, and 3 labels"),
        ({"h": np.ones((2, 3, 4))}, {"row": 3}, "there is no row 3 of 3 in 'h'"),
    ],
)
def test_values_refuse_wrong_shapes(named, options, message):
    with pytest.raises(ValueError, match=message):
        plot.values(named, **options)


# Gradients


def unrolled_norms(layer, x, seed):
    """The same norms from one tape over all steps, with one backward for each: slow but simple."""
    shapes = layer.state_shapes(x.shape[1])
    top = np.zeros(next(iter(shapes.values())))
    direction = np.random.default_rng(seed).standard_normal(top[-1].shape)
    direction /= np.linalg.norm(direction)
    norms = []
    for t in range(len(x) + 1):
        with no_grad():
            state = None if t == 0 else layer(x[:t])[1]
        if state is None:
            state = tuple(np.zeros(shape) for shape in shapes.values())
        state = state if isinstance(state, tuple) else (state,)
        leaves = [Tensor(s, requires_grad=True) for s in state]
        if t == len(x):
            norms.append(1.0)
            continue
        y, _ = layer(x[t:], tuple(leaves) if len(leaves) > 1 else leaves[0])
        ops.sum(y[-1] * direction).backward()
        norms.append(np.sqrt(sum(np.sum(leaf.grad**2) for leaf in leaves if leaf.grad is not None)))
    return norms


@pytest.mark.parametrize("name", ["rnn", "gru", "peephole_lstm", "mingru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradient_norms_are_those_of_one_long_backward(name, layers, x):
    layer = nn.Recurrent(name, I, H, num_layers=layers, dtype=np.float64)
    norms = plot.gradient_norms({"it": layer}, x, seed=3).data["it"]
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())
    np.testing.assert_allclose(norms, unrolled_norms(layer, x, 3), rtol=1e-12)
    layer.batch_first = True
    again = plot.gradient_norms({"it": layer}, x.swapaxes(0, 1), seed=3).data["it"]
    np.testing.assert_array_equal(again, norms)


def test_gradient_norms_of_a_linear_recurrence_are_powers():
    layer = nn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=np.float64)
    layer.load_state_dict({"weight_ih_l0": [[1.0], [1.0]], "weight_hh_l0": 0.5 * np.eye(2)})
    norms = plot.gradient_norms({"half": layer}, np.ones((6, 1))).data["half"]
    np.testing.assert_allclose(norms, 0.5 ** np.arange(6, -1, -1), rtol=1e-12)


def test_gradient_norms_refuse_invalid_input(x):
    with pytest.raises(ValueError, match="a bidirectional layer has no last step"):
        plot.gradient_norms({"it": nn.GRU(I, H, bidirectional=True)}, x)
    with pytest.raises(ValueError, match="the input has no step"):
        plot.gradient_norms({"it": nn.GRU(I, H)}, np.ones((0, B, I), np.float32))
    with pytest.raises(ValueError, match="no layers were given"):
        plot.gradient_norms({}, x)


# Units


def test_units_are_chosen_by_what_they_do(rng):
    constant, slow = np.full(40, 3.0), np.linspace(-1, 1, 40)
    loud = 2 * np.sign(np.sin(np.arange(40)))
    rare = np.where(np.arange(40) == 11, 1.5, 0.0)
    array = np.stack([constant, slow, loud, rare], axis=1)
    deviations = [np.std(column) for column in array.T]
    assert plot.units({"h": array}) == sorted(range(4), key=lambda n: -deviations[n])
    assert plot.units({"h": array}, "selective", 1) == [3]
    assert plot.units({"h": array}, "selective")[-1] != 3
    assert plot.units({"h": array, "c": array[:, [1, 0, 2, 3]] * 9}, "active", 1) == [2]
    assert plot.units({"h": array}, [2, 0]) == [2, 0]
    assert plot.units({"h": array}, "all") == [0, 1, 2, 3]


def test_similar_units_stand_side_by_side(rng):
    kinds = rng.normal(size=(50, 3)) * [3, 2, 1]
    order = rng.permutation(30)
    array = kinds[:, order % 3] + 0.05 * rng.normal(size=(50, 30))
    found = plot.units({"h": array}, "similar")
    assert sorted(found) == list(range(30))
    kinds_in_order = [order[n] % 3 for n in found]
    changes = sum(a != b for a, b in itertools.pairwise(kinds_in_order))
    assert changes <= 3  # a circle of angles may begin within a kind


def test_units_are_the_same_for_all_values_of_a_layer(x):
    layer = nn.LSTM(I, H, num_layers=2, dtype=np.float64)
    _, _, recorded = layer.record(x)
    found = plot.gates(layer, x, row=1, units="active", max_units=2).data
    for suffix in ("l0", "l1"):
        gates = {f"{gate}_{suffix}": recorded[f"{gate}_{suffix}"][:, 1] for gate in "ifgo"}
        numbers = plot.units(gates, "active", 2)
        for name, array in gates.items():
            np.testing.assert_array_equal(found[name], array[:, numbers])


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        ({}, {}, "expected values of one shape .T, H.; got none"),
        ({"h": np.ones((2, 3)), "c": np.ones((2, 4))}, {}, r"'h' \(2, 3\), 'c' \(2, 4\)"),
        ({"h": np.ones((2, 3))}, {"which": "loud"}, "'loud' is none of all, similar, active, sel"),
        ({"h": np.ones((2, 3))}, {"which": [3]}, "there is no unit 3; the units are 0 to 2"),
        ({"h": np.ones((2, 3))}, {"which": [-1]}, "there is no unit -1"),
        ({"h": np.ones((2, 3))}, {"which": []}, "no unit was chosen"),
        ({"h": np.ones((2, 3))}, {"count": 0}, "count"),
    ],
)
def test_units_refuse_what_is_not_there(named, options, message):
    with pytest.raises(ValueError, match=message):
        plot.units(named, **options)


# Embeddings


def test_principal_components_are_those_of_the_covariance(rng):
    vectors = rng.standard_normal((11, 4)) * [3.0, 2.0, 1.0, 0.5] + 7
    coordinates, shares = plot.principal_components(vectors, 3)
    sizes, directions = np.linalg.eigh(np.cov(vectors.T))
    expected = (vectors - vectors.mean(0)) @ directions[:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), rtol=1e-9)
    np.testing.assert_allclose(shares, sizes[::-1][:3] / sizes.sum(), rtol=1e-9)
    assert (coordinates[np.abs(coordinates).argmax(0), range(3)] > 0).all()
    with pytest.raises(ValueError, match=r"count 5 of 11 vectors of 4 numbers; expected 1 to 4"):
        plot.principal_components(vectors, 5)


def test_nearest_and_analogy_depend_on_angles_not_lengths(rng):
    vectors = rng.standard_normal((9, 4))
    labels = list("abcdefghi")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = plot.nearest(vectors, labels, "d", 8)
    for label, cosine in found:
        assert cosine == pytest.approx(unit[labels.index(label)] @ unit[3])
    cosines = [cosine for _, cosine in found]
    assert cosines == sorted(cosines, reverse=True)
    scaled = vectors * rng.uniform(0.1, 10, (9, 1))
    assert plot.nearest(scaled, labels, "d", 8) == [
        (label, pytest.approx(cosine)) for label, cosine in found
    ]
    expected = unit[1] - unit[0] + unit[2]
    ((best, cosine),) = plot.analogy(scaled, labels, "a", "b", "c", count=1)
    others = [n for n in range(9) if n > 2]
    assert best == labels[max(others, key=lambda n: unit[n] @ expected)]
    assert cosine == pytest.approx(unit[labels.index(best)] @ expected / np.linalg.norm(expected))
    with pytest.raises(ValueError, match="nearest: 'z' is not one of the 9 labels"):
        plot.nearest(vectors, labels, "z")
    with pytest.raises(ValueError, match="analogy: 8 labels for 9 vectors"):
        plot.analogy(vectors, labels[:8], "a", "b", "c")


def test_embeddings_show_words_with_their_neighbors(rng):
    vectors, labels = rng.standard_normal((30, 5)), [f"w{n}" for n in range(30)]
    data = plot.embeddings(vectors, labels, ["w3", "w9"], neighbors=4).data
    assert data["nearest"]["w9"] == plot.nearest(vectors, labels, "w9", 4)
    near = {label for word in ("w3", "w9") for label, _ in data["nearest"][word]}
    assert set(data["labels"]) == {"w3", "w9"} | near
    assert plot.embeddings(vectors, labels, max_labels=7).data["labels"] == labels[:7]
    with pytest.raises(ValueError, match="a label occurs twice"):
        plot.embeddings(vectors, ["w0"] * 30)
    with pytest.raises(ValueError, match="a plane needs at least 2 of 2"):
        plot.embeddings(vectors[:1], labels[:1])


# Attention and text


def test_attention_checks_its_labels():
    assert plot.attention(np.ones((2, 3)), "abc", "de").data["weights"].shape == (2, 3)
    message = (
        r"weights of shape \(2, 3\); expected \[T, S\], for 2 tokens of the target and 2 of the"
    )
    with pytest.raises(ValueError, match=message):
        plot.attention(np.ones((2, 3)), "ab", "de")
    with pytest.raises(ValueError, match=r"weights of shape \(3,\)"):
        plot.attention(np.ones(3))


def test_a_text_needs_a_number_for_each_token():
    message = r"text: 2 tokens and numbers of shape \(3,\); expected one number for each"
    with pytest.raises(ValueError, match=message):
        plot.text(["a", "b"], [1, 2, 3])
    with pytest.raises(ValueError, match="at least one token"):
        plot.text([], [])


# Language models


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_tokens_joined_are_the_decoded_text(kind):
    text = "to be, or not\nto bé ☃ be"
    if kind == "bpe":
        pytest.importorskip("tokenizers")
        tokenizer = BPETokenizer.fit([text] * 3, vocabulary_size=262)
    else:
        tokenizer = (CharacterTokenizer if kind == "char" else WordTokenizer).fit([text])
    ids = tokenizer.encode(text)
    pieces = plot.tokens(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert plot.tokens(tokenizer, []) == []


def test_reading_shows_the_states_of_the_model(rng):
    tokenizer = CharacterTokenizer.fit("abcde ")
    model = LanguageModel(6, hidden_size=H, embedding_size=I, num_layers=2, cell="gru").eval()
    text = "a bad cab "
    reading = plot.read(model, tokenizer, text)
    _, _, recorded = model.recurrent.record(model.embedding(tokenizer.encode(text)))
    units = recorded["h_l1"]
    assert (reading.value, reading.unit) == ("h_l1", units.std(axis=0).argmax())
    np.testing.assert_array_equal(reading.text.data["numbers"], units[:, reading.unit])
    assert reading.text.data["tokens"] == list(text)
    assert set(reading.states.data) | set(reading.gates.data) == recorded.keys()
    chosen = plot.read(model, tokenizer, text, "z_l0", 6).text.data["numbers"]
    np.testing.assert_array_equal(chosen, recorded["z_l0"][:, 6])
    with pytest.raises(ValueError, match="no value 'c_l0'; this model has r_l0, z_l0, n_l0, h_l0"):
        plot.read(model, tokenizer, text, "c_l0")
    with pytest.raises(ValueError, match="no unit 7; those of h_l1 are 0 to 6"):
        plot.read(model, tokenizer, text, unit=7)
    with pytest.raises(ValueError, match="read: the text is empty"):
        plot.read(model, tokenizer, "")


def test_a_reading_is_always_in_evaluation_mode():
    tokenizer = CharacterTokenizer.fit("abcdefg")
    options = {"embedding_dropout": 0.5, "weight_dropout": 0.5, "zoneout": 0.5, "dropout": 0.5}
    model = LanguageModel(
        tokenizer.vocabulary_size, hidden_size=H, num_layers=2, layer_norm=True, **options
    )
    in_training = plot.read(model, tokenizer, "gabfeed", unit=2)
    assert model.embedding.training
    in_evaluation = plot.read(model.eval(), tokenizer, "gabfeed", unit=2)
    for one, other in zip(in_training[:3], in_evaluation[:3], strict=True):
        for name, array in one.data.items():
            np.testing.assert_array_equal(array, other.data[name])


def test_token_embeddings_have_each_text_once():
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.fit(["to be or not to be"] * 3, vocabulary_size=260)
    model = LanguageModel(tokenizer.vocabulary_size, hidden_size=4)
    data = plot.token_embeddings(model, tokenizer, ["t"]).data
    assert data["labels"][0] == "t"
    assert len(set(data["labels"])) == len(data["labels"]) == 7


# Graphs


def test_a_graph_has_every_operation_once_and_its_inputs():
    a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor([[3.0], [4.0]], requires_grad=True)
    shared = a * 2
    loss = ops.sum(shared * b + shared)
    operations = recorded_graph(loss)
    assert [o.name for o in operations] == ["multiply", "multiply", "add", "sum"]
    assert operations[0].inputs[0].source is a
    assert [i.source for i in operations[1].inputs] == [0, b]
    assert [i.source for i in operations[2].inputs] == [1, 0]
    assert [i.shape for i in operations[3].inputs] == [(2, 2)]
    loss.backward(retain_graph=True)
    assert len(recorded_graph(loss)) == 4
    loss.backward()
    with pytest.raises(RuntimeError, match="recorded_graph: backward ran through sum and freed"):
        recorded_graph(loss)
    assert recorded_graph(a) == []
    with pytest.raises(ValueError, match="graph: no operation was recorded"):
        plot.graph(a)


def test_a_long_graph_does_not_recurse():
    x = Tensor(1.0, requires_grad=True)
    for _ in range(5000):
        x = x * 1.0
    assert len(recorded_graph(x)) == 5000


def test_a_graph_names_parameters_and_escapes_names():
    model = LanguageModel(6, hidden_size=3)
    logits, _ = model([[1], [2]])
    dot = plot.graph(logits, model).dot
    for name, parameter in model.named_parameters():
        assert f'[label="{name} {list(parameter.shape)}" shape=box' in dot
    assert dot.count("->") == len([*model.parameters()]) + 2 + 1  # and two between, and the result

    class Odd(nn.Module):
        def __init__(self, parameter):
            setattr(self, 'a"b', parameter)

    assert r'label="a\"b [6]"' in plot.graph(logits, Odd(model.output.bias)).dot
