"""Every picture is rendered and saved, without a display, with the same bytes each time."""

import itertools
import shutil
import struct
import warnings
import xml.etree.ElementTree

import numpy as np
import pytest

from anaphora import nn, plot
from anaphora.tensor import Tensor
from anaphora.training import LearningRateSweep

matplotlib = pytest.importorskip("matplotlib")

RECORDS = [
    {"kind": kind, "step": step, "loss": loss}
    for kind, step, loss in [("train", 1, 3.0), ("train", 2, float("inf")), ("evaluation", 2, 2.0)]
]
ODD = ["$x^", " ", "\n", "\x00", "漢", "a word", "_", "$"]


def pictures():
    rng = np.random.default_rng(1)
    layer, x = nn.LSTM(4, 7, num_layers=2), np.ones((8, 3, 4), np.float32)
    vectors = rng.standard_normal((8, 5))
    yield "losses", plot.losses({"$a$": RECORDS, "b": RECORDS[:1], "c": RECORDS[2:]})
    yield "states", plot.states(layer, x, labels=ODD)
    yield "gates", plot.gates(nn.GRU(4, 20), x, labels=ODD)
    yield "long", plot.values({"h": rng.standard_normal((3000, 1)), "g": np.zeros((3000, 30))})
    yield "not finite", plot.values({"h": [[np.nan, np.inf]], "c": np.full((1, 9), np.nan)})
    yield "gradients", plot.gradient_norms({"$": layer, "b": layer}, np.ones((2, 1, 4), np.float32))
    yield "text", plot.text(ODD * 10, np.linspace(-1, 3, 80), title="$a", columns=20)
    yield "attention", plot.attention(rng.random((8, 3)), ["$", "a", "b"], ODD)
    rates = np.geomspace(1e-3, 10, 4)
    sweep = LearningRateSweep(rates, np.array([3.0, 2.0, 4.0, 9.0]), np.full(4, 3.0), 0.01)
    yield "learning rates", plot.learning_rates(sweep)
    yield "bare attention", plot.attention(np.ones((2, 3)))
    yield "embeddings", plot.embeddings(vectors, ODD, ["$", "_"], neighbors=2)
    yield "all embeddings", plot.embeddings(vectors, ODD)


@pytest.fixture(scope="module")
def rendered():
    return dict(pictures())


@pytest.mark.parametrize("name", [name for name, _ in pictures()])
def test_it_is_rendered_and_fits(name, rendered, tmp_path):
    picture = rendered[name]
    figure = picture.figure
    assert picture.figure is figure
    png = picture.save(tmp_path / "it.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert 300 <= width <= 1400
    assert 100 <= height <= 2000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        box = figure.get_tightbbox()
    edges = figure.get_size_inches()  # no label extends beyond them
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < edges[0] + 0.05
    assert box.y1 < edges[1] + 0.05


def test_svg_is_the_same_each_time_and_no_style_leaks(tmp_path, rendered):
    before = dict(matplotlib.rcParams)
    files = [plot.losses({"a": RECORDS}).save(tmp_path / f"{n}.svg").read_bytes() for n in range(2)]
    assert files[0] == files[1]
    assert xml.etree.ElementTree.fromstring(files[0]).tag.endswith("svg")
    assert dict(matplotlib.rcParams) == before


def test_png_is_the_same_each_time_for_a_notebook_too(tmp_path, rendered):
    png = rendered["attention"].save(tmp_path / "it.png").read_bytes()
    assert rendered["attention"]._repr_png_() == png


def test_another_suffix_is_refused(tmp_path, rendered):
    with pytest.raises(ValueError, match=r"it.gif: a picture is written as .png or .svg"):
        rendered["text"].save(tmp_path / "it.gif")


def test_a_graph_is_saved(tmp_path, monkeypatch):
    x = Tensor([1.0], requires_grad=True)
    graph = plot.graph(x * 2)
    assert graph.save(tmp_path / "g.dot").read_text() == graph.dot
    with pytest.raises(ValueError, match=r"g.gif: a graph is written as .dot, .gv, .svg"):
        graph.save(tmp_path / "g.gif")
    if shutil.which("dot"):
        assert "multiply" in graph.save(tmp_path / "g.svg").read_text()
        assert "<svg" in graph._repr_svg_()
    monkeypatch.setenv("PATH", "")
    assert graph._repr_svg_() is None
    with pytest.raises(RuntimeError, match="needs Graphviz, whose program dot is not on PATH"):
        graph.save(tmp_path / "g.svg")


def boxes_of(texts, figure):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


def test_labels_of_embeddings_do_not_overlap(rng):
    names = [f"word{n}" for n in range(90)]
    vectors = np.concatenate([rng.normal(size=(60, 5)), 0.1 * rng.normal(size=(30, 5))])
    figure = plot.embeddings(vectors, names, max_labels=90).figure
    (axes,) = figure.axes
    boxes = boxes_of(axes.texts, figure)
    assert len(boxes) > 70
    left_out = axes.get_title(loc="right")
    assert left_out == (f"{90 - len(boxes)} labels left out for space" if len(boxes) < 90 else "")
    for n, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:n])
    points = axes.transData.transform(axes.lines[0].get_xydata())
    assert len(points) == 90
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_words_are_labelled_at_their_points(rng):
    vectors = rng.normal(size=(40, 6))
    names = [f"n{n}" for n in range(40)]
    picture = plot.embeddings(vectors, names, ["n7", "n8"], neighbors=15)
    (axes,) = picture.figure.axes
    bold = [text for text in axes.texts if text.get_weight() == "bold"]
    assert [text.get_text() for text in bold] == ["n7", "n8"]
    for text, box in zip(bold, boxes_of(bold, picture.figure), strict=True):
        at = picture.data["coordinates"][picture.data["labels"].index(text.get_text())]
        x, y = axes.transData.transform(at)
        assert abs(box.x0 - x) + abs(box.y0 - y) < 20


@pytest.mark.parametrize("text", ["a", "one line of text", "many lines\n" * 30])
def test_the_bar_of_colors_is_as_high_for_any_text(text):
    figure = plot.text(list(text), np.linspace(-1, 1, len(text))).figure
    bars = [axes for axes in figure.axes[1].child_axes if axes.images or axes.collections]
    (bar,) = bars
    box = bar.get_window_extent()
    assert 5 <= box.height <= 22
    assert 200 <= box.width <= 260
    assert [label.get_text() for label in bar.get_xticklabels()] == ["-1", "0", "1"]


def test_chosen_units_are_named_at_their_rows(rng):
    values = rng.normal(size=(30, 128)) * np.linspace(0, 1, 128)
    picture = plot.values({"f_l0": values}, units="active", max_units=20)
    numbers = plot.units({"f_l0": values}, "active", 20)
    axes = picture.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(n) for n in numbers]
    np.testing.assert_array_equal(picture.data["f_l0"], values[:, numbers])
    boxes = boxes_of(axes.get_yticklabels(), picture.figure)
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    all_of_them = plot.values({"f_l0": values}, units="similar").figure.axes[0]
    assert all_of_them.get_ylabel() == "128 units"
    assert all_of_them.get_window_extent().height > 2 * 128  # two dots for a unit
