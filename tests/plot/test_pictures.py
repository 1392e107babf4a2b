"""Every picture is rendered and saved, without a display, with the same bytes each time."""

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
    yield "embeddings", plot.embeddings(vectors, ODD, ["$", "_"], neighbours=2)
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
