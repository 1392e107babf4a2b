"""Texts that several processes read and encode together."""

import json

import numpy as np
import pytest

from anaphora.data import count_id
from anaphora.distributed import helped, helpers, spread
from anaphora.distributed.processes import ALONE

SPREAD = """
import os
from anaphora.distributed import helped, helpers, spread, world

w = world()

def rank_of(item):
    if item == 7:
        raise KeyError("seven")
    return item, w.rank

found = "nothing"
with w.together(), helped(w):
    if w.is_main:
        assert helpers() == 3
        assert spread(rank_of, range(5)) == [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1)]
        assert spread(rank_of, []) == []
        try:
            spread(rank_of, [6, 7, 8])
        except KeyError as error:
            assert "rank 1 on " in error.args[0] and error.args[0].endswith("seven")
        else:
            raise AssertionError("it is not raised")
        assert spread(rank_of, [9]) == [(9, 0)]
        found = "all is right"
try:
    with w.together(), helped(w):
        if w.is_main:
            raise OSError("rank 0 fails alone")
except OSError as error:
    assert "rank 0 fails alone" in str(error)
else:
    raise AssertionError("the others go on")
assert helpers() == 1
if w.is_main:
    print(found)
"""


def test_processes_help_rank_0(launch, script):
    out, errors = launch(3, [script(SPREAD)])
    assert out == "all is right\n", errors


def test_without_helpers_rank_0_does_all_work():
    with helped(ALONE):
        assert helpers() == 1
        assert spread(str, [3, 4]) == ["3", "4"]
    with pytest.raises(ValueError, match="invalid literal"):
        spread(int, ["1", "one"])


def test_ids_are_counted_in_blocks(monkeypatch):
    monkeypatch.setattr("anaphora.data.corpus._BLOCK", 7)
    ids = np.random.default_rng(1).integers(0, 3, 50)
    assert count_id(ids, 2) == (ids == 2).sum() > 9
    assert count_id(ids, None) == count_id(ids, 3) == 0


ENCODE = """
import json, sys
from pathlib import Path
from anaphora.data import open_source, BPETokenizer
from anaphora.data.corpus import encode_to_file
from anaphora.distributed import helped, world
from anaphora.training import TASKS
from anaphora.training.language_model import fit_tokenizer

w = world()
folder, name = Path(sys.argv[1]), sys.argv[2]
options = TASKS["language-model"].options
CASES = {
    "char": {"level": "char"},
    "kept": {"level": "char", "minimum_count": 1},
    "word": {"level": "word", "minimum_count": 3, "lowercase": True},
    "sentences": {"level": "word", "sentence_start": True, "batching": "sentences"},
    "bpe": {"level": "bpe", "vocabulary_size": 300},
    "table": {"level": "char", "column": "text"},
}
found = {}
with w.together(), helped(w):
    for case, given in CASES.items() if w.is_main else ():
        chosen = options.make(**given)
        files = sorted(folder.glob("*.csv" if chosen.column else "*.txt"))
        source = open_source(files, chosen.column)
        assert len(source.pieces(3)) == 3
        tokenizer = fit_tokenizer(chosen, source)
        encode_to_file(source, tokenizer, folder / f"{name}.{case}.npy")
        found[case] = tokenizer.to_dict()
        if case == "kept":
            (folder / "other").write_text("x\\n" * 30 + "y @\\n" + "x\\n" * 9)
            try:
                encode_to_file(open_source(folder / "other"), tokenizer, folder / "none.npy")
            except ValueError as error:
                found["error"] = str(error)
if w.is_main:
    (folder / f"{name}.json").write_text(json.dumps(found))
"""


def test_processes_encode_the_text_of_one(launch, script, tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra bpe")
    rng = np.random.default_rng(2)
    words = ["the", "Cat", "saw", "xylophones", "and", "\u00e9t\u00e9", "\u2603", "y"]
    for number in range(3):
        lines = [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(50)]
        (tmp_path / f"{number}.txt").write_text("\n".join(lines))  # without a last line end
        rows = "".join(f'"{line}"\n' for line in lines)
        (tmp_path / f"{number}.csv").write_text(f"text\n{rows}")
    program = script(ENCODE.replace("== 3\n        token", ">= 1\n        token"), "one.py")
    launch(1, [program, tmp_path, "one"])
    launch(3, [script(ENCODE), tmp_path, "three"])
    one, three = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "three"))
    assert one == three
    assert "the character '@' (U+0040) at line 31, column 3 of the text" in one["error"]
    for case in ("char", "kept", "word", "sentences", "bpe", "table"):
        files = [(tmp_path / f"{name}.{case}.npy").read_bytes() for name in ("one", "three")]
        assert files[0] == files[1], case
        assert len(files[0]) > 500
    left = {path.name for path in tmp_path.iterdir() if "piece" in path.name or "part" in path.name}
    assert left == set()
