"""Saving and loading models from Python: any class, over what a folder holds; what a repr says."""

from dataclasses import dataclass

import numpy as np
import pytest

import anaphora
from anaphora import no_grad
from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data import CharacterTokenizer, ClassifierCodec, RegressorCodec
from anaphora.models import (
    EncoderDecoder,
    LanguageModel,
    SavedModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    VectorToSequence,
)

MODELS = {
    "language model": lambda: LanguageModel(vocabulary_size=7, hidden_size=3, num_layers=2),
    "classifier": lambda: SequenceClassifier(num_classes=2, hidden_size=3, input_size=5),
    "regressor": lambda: SequenceRegressor(num_outputs=4, hidden_size=3, vocabulary_size=6),
    "tagger": lambda: SequenceTagger(num_tags=4, hidden_size=3, input_size=5, bidirectional=True),
    "encoder and decoder": lambda: EncoderDecoder(
        source_vocabulary_size=5, vocabulary_size=6, hidden_size=4
    ),
    "vector to sequence": lambda: VectorToSequence(input_size=5, vocabulary_size=6, hidden_size=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_by_its_class_and_by_load(tmp_path, name):
    model = MODELS[name]()
    model.save(str(tmp_path / "model"))
    for found in (type(model).load(tmp_path / "model"), anaphora.load(str(tmp_path / "model"))):
        assert type(found) is type(model)
        assert found.options == model.options
        assert not found.training
        assert found.codec is None
        for key, array in model.state_dict().items():
            np.testing.assert_array_equal(found.state_dict()[key], array)


def test_a_subclass_with_a_kind_of_its_own_comes_back(tmp_path):
    @dataclass(eq=False, repr=False)
    class Louder(SequenceClassifier):
        factor: float = 2.0

        kind = "louder"

        def forward(self, inputs, lengths=None):
            return super().forward(inputs, lengths) * self.factor

    try:
        model = Louder(2, hidden_size=3, input_size=5, factor=3.0)
        model.save(tmp_path / "model")
        found = anaphora.load(tmp_path / "model")
        assert type(found) is Louder
        assert found.factor == 3.0
        x = np.random.default_rng(2).standard_normal((4, 2, 5))
        with no_grad():
            np.testing.assert_array_equal(found(x).data, model.eval()(x).data)
        with pytest.raises(ArtifactError, match="its task is 'louder', not 'sequence_classifier'"):
            SequenceClassifier.load(tmp_path / "model")
    finally:
        del SavedModel.kinds["louder"]
    with pytest.raises(ArtifactError, match="its task is 'louder'; expected sequence_tagger"):
        anaphora.load(tmp_path / "model")


def test_the_codec_comes_back(tmp_path):
    model = SequenceRegressor(num_outputs=1, hidden_size=3, vocabulary_size=2)
    model.codec = RegressorCodec.fit([("a", (20.0,)), ("b", (40.0,))])
    model.save(tmp_path / "model")
    found = anaphora.load(tmp_path / "model").codec
    assert found.to_dict() == model.codec.to_dict()
    assert found.decode([[1.0]]).tolist() == [[40.0]]


def test_another_model_takes_the_place_of_what_the_folder_holds(tmp_path):
    MODELS["classifier"]().save(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    MODELS["regressor"]().save(tmp_path / "model")
    assert type(anaphora.load(tmp_path / "model")) is SequenceRegressor
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_refused_and_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not empty and is not a model directory"):
        MODELS["classifier"]().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_that_is_being_trained_is_refused_and_stays(tmp_path):
    MODELS["classifier"]().save(tmp_path / "model")
    training = ModelDirectory.open(tmp_path / "model")
    training.lock()
    with pytest.raises(ArtifactError, match="is being trained by this process"):
        MODELS["regressor"]().save(tmp_path / "model")
    training.unlock()
    assert type(anaphora.load(tmp_path / "model")) is SequenceClassifier


def test_what_cannot_be_saved_leaves_the_model_that_is_there(tmp_path):
    MODELS["regressor"]().save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="note is of type object"):
        MODELS["classifier"]().save(tmp_path / "model", note=object())
    model = MODELS["classifier"]()
    model.codec = object()
    with pytest.raises(AttributeError):
        model.save(tmp_path / "model")
    assert type(anaphora.load(tmp_path / "model")) is SequenceRegressor


def test_a_repr_has_the_options_that_matter_and_the_size():
    model = SequenceClassifier(2, hidden_size=3, input_size=5, pooling="mean")
    text = repr(model).split("\n")
    assert text[:2] == [
        "SequenceClassifier(",
        "  hidden_size=3, pooling='mean', input_size=5, num_classes=2",
    ]
    assert text[-1] == f") ({sum(p.size for p in model.parameters())} parameters)"
    model.codec = ClassifierCodec(("a", "b"), CharacterTokenizer.fit("ab"))
    assert repr(model).split("\n") == text
