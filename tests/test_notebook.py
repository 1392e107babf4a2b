"""What notebooks show: read back as a browser would, and compared with the numbers."""

from html.parser import HTMLParser

import numpy as np
import pytest

from anaphora import cell, nn, notebook, random
from anaphora.models import LanguageModel
from anaphora.tensor import Parameter, RowGradient, Tensor


class Reader(HTMLParser):
    """Reads tables and summaries, and refuses tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.summaries, self.styles, self.depth = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.styles.append(dict(attributes).get("style", ""))
        if tag == "summary":
            self.summaries.append("")
            self.depth.append(self.open.count("details"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "summary" in self.open:
            self.summaries[-1] += data


def test_a_module_shows_its_modules_and_their_parameters():
    random.seed(3)
    model = LanguageModel(vocabulary_size=9, hidden_size=5, embedding_size=4)
    model.output.weight.requires_grad = False
    model.output.bias.grad = np.arange(9, dtype=np.float32)
    found = Reader(model._repr_html_())
    assert [one.split(" ")[:2] for one in found.summaries] == [
        ["LanguageModel", "hidden_size=5,"],
        ["embedding:", "Embedding"],
        ["recurrent:", "Recurrent"],
        ["output:", "Linear"],
    ]
    assert found.depth == [1, 2, 2, 2]
    assert "drop: Dropout p=0.0" in found.text
    rows = {tuple(row[:2]): row for row in found.rows}
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        row = rows[own, " × ".join(map(str, parameter.shape))]
        assert row[2] == "float32", module
        values = parameter.data.astype(np.float64)
        expected = [values.mean(), values.std(), values.min(), values.max(), 0]
        assert [float(one) for one in row[3:8]] == pytest.approx(expected, rel=1e-3)
    assert rows["weight", "9 × 5"][8] == "frozen"
    assert float(rows["bias", "9"][8]) == pytest.approx(np.sqrt(204), rel=1e-3)
    assert rows["weight", "9 × 4"][8] == ""


def test_gradients_of_rows_have_a_norm():
    embedding = nn.Embedding(7, 3)
    embedding([1, 1, 4]).sum().backward()
    assert isinstance(embedding.weight.grad, RowGradient)
    row = Reader(embedding._repr_html_()).rows[1]
    assert float(row[8]) == pytest.approx(np.sqrt(3 * (4 + 1)), rel=1e-3)


def test_texts_are_escaped():
    class Odd(nn.Module):
        def __init__(self):
            self.parts = {"<i>": Parameter([1.0])}

        def extra_repr(self):
            return "<script>alert(1)</script>"

    text = Odd()._repr_html_()
    assert "<script>" not in text
    assert "<i>" not in text
    assert "<script>alert(1)</script>" in Reader(text).summaries[0]


def test_a_tensor_shows_its_numbers():
    values = np.array([[0.5, -2.0, np.nan], [1e-9, 4.0, np.inf]], np.float64)
    found = Reader(Tensor(values, requires_grad=True)._repr_html_())
    assert found.summaries == ["Tensor 2 × 3, float64, requires gradient"]
    names, numbers, *rows = found.rows
    assert names == list(notebook.STATISTICS)
    finite = values[np.isfinite(values)]
    expected = [finite.mean(), finite.std(), -2, 4, 2]
    assert [float(one) for one in numbers] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(np.array(rows, float), values)
    colours = found.styles[-6:]
    assert "50, 110, 235, 0.750" in colours[4]  # the largest
    assert "225, 60, 60, 0.375" in colours[1]
    assert ", 0.000" in colours[2]
    assert ", 0.000" in colours[5]


def test_large_tensors_show_their_ends_and_small_ones_all():
    values = np.arange(40 * 30).reshape(40, 30)
    rows = Reader(Tensor(values.astype(np.float64))._repr_html_()).rows[2:]
    assert len(rows) == 17
    assert rows[0] == [*map(str, range(6)), "…", *map(str, range(24, 30))]
    assert set(rows[8]) == {"…"}
    assert rows[16][-1] == f"{1199:.4g}"
    assert Reader(Tensor(np.float32(2.5))._repr_html_()).rows[2:] == [["2.5"]]
    cube = Reader(Tensor(np.arange(24.0).reshape(2, 3, 4))._repr_html_()).rows[2:]
    assert [float(row[0]) for row in cube] == [0, 4, 8, 12, 16, 20]
    assert Tensor(np.zeros((0, 3)))._repr_html_() == "<div><b>Tensor</b> 0 × 3, float64</div>"


def test_statistics_of_numbers_that_are_huge_or_all_not_finite():
    big = np.full(4, 3e307)
    assert notebook.statistics(big) == ["3e+307", "0", "3e+307", "3e+307", "0"]
    assert notebook.statistics(np.array([np.nan, -np.inf])) == ["", "", "", "", "2"]
    assert notebook.statistics(np.zeros(3)) == ["0", "0", "0", "0", "0"]
    assert notebook.statistics(np.array([True, False])) == ["0.5", "0.5", "0", "1", "0"]


def test_a_cell_shows_its_equations():
    lstm = nn.LSTM(3, 4).cell
    text = lstm._repr_html_()
    found = Reader(text)
    assert found.rows[1:] == [["gates", "i f g o"], ["states", "h c"]]
    assert found.summaries == [
        "cell lstm",
        f"backward, {repr(lstm).split('backward, ')[1].split(':')[0]}",
    ]
    assert "\n".join(lstm.program.lines()) in found.text
    assert "\n".join(lstm.adjoint.program.lines()) in found.text
    assert text.count("<details open>") == 1  # backward is folded


def test_a_cell_that_is_not_fused_says_so():
    @cell(gates="z", state="h", fused=False)
    def plain(z, h):
        return np.tanh(z)

    assert "not fused" in Reader(plain._repr_html_()).text
