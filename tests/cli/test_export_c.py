"""``anaphora export`` of model directories to C and to RTNeural's JSON."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora import load
from anaphora.cli.app import app
from anaphora.data import CharacterTokenizer, RegressorCodec
from anaphora.models import LanguageModel, SequenceRegressor, SequenceTagger


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model and a regressor, saved."""
    folder = tmp_path_factory.mktemp("export")
    writer = LanguageModel(7, hidden_size=5, cell="gru")
    writer.codec = CharacterTokenizer.fit("\nabcde?")
    writer.save(folder / "writer")
    meter = SequenceRegressor(1, hidden_size=4, input_size=1)
    moments = {"mean": np.array([2.0]), "scale": np.array([3.0])}
    meter.codec = RegressorCodec(("level",), np.array([1.0]), np.array([2.0]), **moments)
    meter.save(folder / "meter")
    SequenceTagger(3, hidden_size=4, input_size=2, bidirectional=True).save(folder / "tagger")
    return folder


def test_to_c(folder, tmp_path):
    out = tmp_path / "book.c"
    printed, _ = run("export", folder / "writer", out)
    assert f"wrote {out} and {tmp_path / 'book.h'}" in printed.replace("\n", " ")
    header = (tmp_path / "book.h").read_text()
    assert "int book_step(book_state *state, int32_t token, float *y);" in header
    assert "#define BOOK_VOCABULARY_SIZE 7" in header
    assert "weights in float32" in header
    assert '"\\?",' in out.read_text()


def test_to_c_in_8_bits_as_json(folder, tmp_path):
    out = tmp_path / "book.c"
    printed, _ = run("export", folder / "writer", out, "--weights", "int8", "--json")
    record = json.loads(printed)
    assert (record["format"], record["weights"]) == ("c", "int8")
    assert f"weights {record['weight_bytes']} bytes, state 20," in (tmp_path / "book.h").read_text()


def test_a_quantized_directory_is_exported_in_8_bits(folder, tmp_path):
    run("quantize", folder / "meter", tmp_path / "small")
    printed, _ = run("export", tmp_path / "small", tmp_path / "level.c", "--json")
    assert json.loads(printed)["weights"] == "int8"


def test_to_rtneural(folder, tmp_path):
    out = tmp_path / "level.json"
    printed, _ = run("export", folder / "meter", out, "--format", "rtneural", "--json")
    assert json.loads(printed) == {
        "out": str(out), "format": "rtneural", "layers": ["lstm", "dense"],
    }  # fmt: skip
    data = json.loads(out.read_text())
    model = load(folder / "meter")
    kernel = np.array(data["layers"][0]["weights"][0])
    assert np.allclose(kernel[0, :8], model.recurrent.weight_ih_l0.data[:8, 0] / 3, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("tagger", "tags.c", "SequenceTagger is bidirectional"),
        ("writer", "book.json", "the language model reads tokens"),
        ("writer", "my-book.c", "give the file another name"),
    ],
)
def test_what_cannot_be_exported_is_explained(folder, tmp_path, model, out, message):
    _, error = run("export", folder / model, tmp_path / out, code=1)
    assert message in " ".join(error.split())
    assert not list(tmp_path.iterdir())
