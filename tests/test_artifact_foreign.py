"""Directories of other libraries are described, wherever one is taken for a model directory."""

import json
import os
import re

import numpy as np
import pytest
import safetensors.numpy

import anaphora
from anaphora.artifact import ArtifactError

BERT = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 4}


def tensors(*names):
    return {name: np.ones((k + 2, 3), np.float32) for k, name in enumerate(names)}


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        (
            {"model.safetensors": tensors("a", "b")}, BERT,
            "model.safetensors holds 2 tensors of F32 with 15 numbers: a [2, 3], b [3, 3]; it is a "
            "BertModel, which the library transformers reads; none of its tensors are a recurrent",
        ),
        (
            {"m-1-of-2.safetensors": tensors(*"abcdef"), "m-2-of-2.safetensors": tensors("g", "h")},
            None,
            "m-1-of-2.safetensors, m-2-of-2.safetensors holds 8 tensors of F32 with 96 numbers: a "
            "[2, 3], b [3, 3], c [4, 3], d [5, 3], e [6, 3], f [7, 3], and 2 more; it has no con",
        ),
        (
            {"x.safetensors": tensors("rnn.weight_ih_l0")}, {"model_type": "speaker"},
            "of the type speaker, which the library transformers reads; if it is an RNN, LSTM or GR"
            "U: anaphora import",
        ),
        (
            {"x.safetensors": tensors("a")}, {"units": 3},
            "its config.json is another library's; the library that wrote it reads it",
        ),
        ({"pytorch_model.bin": None}, BERT, "pytorch_model.bin was written by torch.save; it is a"),
        ({"x.safetensors": None}, None, "x.safetensors cannot be read: it is damaged; it has no"),
        ({"notes.txt": None}, BERT, '"format"; expected the folder that anaphora train wrote'),
    ],
)  # fmt: skip
def test_what_a_directory_holds(files, config, message, tmp_path):
    for name, held in files.items():
        if held is None:
            (tmp_path / name).write_bytes(b"\xff" * 30)
        else:
            safetensors.numpy.save_file(held, tmp_path / name)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=re.escape(message)) as raised:
        anaphora.load(tmp_path)
    assert len(str(raised.value)) < 1500


@pytest.mark.parametrize(
    "header",
    [
        b"{}", b"[]", b'{"a": 3}', b'{"a": {"shape": 3}}', b'{"a": {"shape": ["x", [], null]}}',
        b'{"a": {"shape": [999999999999999999999, 99999999999]}}', b"{" * 100_000,
        json.dumps({"n" * 10_000 + str(k): {"shape": [k] * 1000} for k in range(9)}).encode(),
    ],
    ids=lambda h: h[:40].decode(),
)  # fmt: skip
def test_headers_may_say_anything(header, tmp_path):
    path = tmp_path / "model.safetensors"
    for size in (len(header), 2**63, 0):
        path.write_bytes(size.to_bytes(8, "little") + header)
        with pytest.raises(ArtifactError, match="is not a model directory") as raised:
            anaphora.load(tmp_path)
        assert len(str(raised.value)) < 3000


def test_links_are_not_followed(tmp_path):
    safetensors.numpy.save_file(tensors("secret"), tmp_path / "secret.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(tmp_path / "secret.safetensors", folder / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be read") as raised:
        anaphora.load(folder)
    assert "secret" not in str(raised.value)
