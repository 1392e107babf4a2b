"""Scripts as users of PyTorch write them, in scripts/, beside those with the import changed.

Ours are the examples in examples/from_pytorch. Both train from the same weights on the same data.
"""

import ast
import difflib
import importlib.util
import keyword
import random
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora.foreign_names import CALLS, NAMES

ROOT = Path(__file__).resolve().parents[2]
THEIRS = Path(__file__).parent / "scripts"
OURS = ROOT / "examples" / "from_pytorch"

# The model, without dropout; what train() takes besides; what the trained model does.
SCRIPTS = {
    "adding_problem": ("AddingNetwork()", {}, "evaluate(model, 7, 9)"),
    "captioning": ("Captioner()", {}, "model.describe(random_picture()[0])"),
    "character_generation": (
        "CharacterModel()",
        {},
        "bits_per_character(model, TEST_TEXT[:500])",
    ),
    "forecasting": ("LSTMForecaster(dropout=0)", {"shuffle": False}, "forecast(model, SERIES)"),
    "language_model": ("WordModel(dropout=0)", {}, "continuation(model, 'the millers')"),
    "name_classification": ("NameClassifier()", {}, "guesses(model, 'schumann', 5)"),
    "sentiment": (
        "SentimentClassifier(dropout=0)",
        {"shuffle": False},
        "[probability(model, text) for text, _ in TEST_REVIEWS[:9]]",
    ),
    "sequence_vae": ("SequenceVAE()", {}, "reconstruction_error(model), between(model)"),
    "sine_waves": ("WavePredictor()", {}, "test_loss(model), continuation(model, 5)"),
    "speech_ctc": (
        "Recognizer()",
        {},
        "error_rate(model, 3), model(to_tensor([Speaker(4).say('31')])).tolist()",
    ),
    "tagger": ("Tagger()", {}, "[model.predict(random_sentence()[0]) for _ in range(9)]"),
    "translation": ("Translator()", {}, "[y.tolist() for y in model(random_batch()[0])]"),
}


def module(path):
    specification = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)
    return made


def test_all_scripts_are_compared():
    for folder in (THEIRS, OURS):
        assert {path.stem for path in folder.glob("*.py")} == SCRIPTS.keys()
    assert len(SCRIPTS) == 12


# Both run and agree


def values(result):
    """The numbers of a result, or its words."""
    if isinstance(result, (tuple, list)):
        return [value for part in result for value in values(part)]
    return [result] if isinstance(result, str) else np.ravel(result).tolist()


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_train_to_the_same_losses_and_answers(name, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
    made, options, asked = SCRIPTS[name]
    ours, theirs = module(OURS / f"{name}.py"), module(THEIRS / f"{name}.py")
    anaphora.random.seed(1)
    models = [eval(made, vars(script)) for script in (ours, theirs)]
    initial = {key: torch.tensor(array) for key, array in models[0].state_dict().items()}
    models[1].load_state_dict(initial)

    found = []
    for script, model, tensor in zip(
        (ours, theirs), models, (anaphora.Tensor, torch.tensor), strict=True
    ):
        noise = np.random.default_rng(2)

        def randn(*shape, tensor=tensor, noise=noise):
            return tensor(noise.standard_normal(shape[0]).astype(np.float32))

        monkeypatch.setattr(script.torch, "randn", randn)
        random.seed(3)
        losses = script.train(model, steps=2 if name == "sine_waves" else 8, **options)
        with script.torch.no_grad():
            found.append((losses, values(eval(asked, vars(script) | {"model": model}))))
    (losses, answers), (expected, expected_answers) = found
    assert len(set(losses)) == len(losses)
    exact = name == "sine_waves"  # it computes in float64
    np.testing.assert_allclose(losses, expected, rtol=1e-9 if exact else 1e-4)
    state = models[0].state_dict()
    assert any(np.abs(state[key] - array.numpy()).max() > 1e-3 for key, array in initial.items())
    for key, array in models[1].state_dict().items():
        tolerance = {"rtol": 1e-7, "atol": 1e-7} if exact else {"rtol": 1e-3, "atol": 1e-4}
        np.testing.assert_allclose(state[key], array.numpy(), **tolerance, err_msg=key)
    for answer, other in zip(answers, expected_answers, strict=True):
        assert answer == (other if isinstance(other, str) else pytest.approx(other, 1e-3, 1e-3))


# Few lines differ, each by a row of the table

PACKAGES = {"torch", "nn", "functional", "utils", "rnn", "data", "anaphora", "ops", "optim"}


def words(lines):
    """The names in lines of Python."""
    text = " ".join(lines)
    return {word for word in re.findall(r"[A-Za-z_]\w*", text) if not keyword.iskeyword(word)}


def rows():
    """For each name of theirs in the table, the names that may stand for it."""
    table = defaultdict(set)
    for names in NAMES.values():
        for key, text in names.items():
            for name in key.split():
                table[name] |= words([text])
    for theirs, ours in CALLS.items():
        for name in words([theirs]) - words([ours]):
            table[name] |= words([ours])
    return table


TABLE = rows()


def unexplained(theirs, ours, used=frozenset()):
    """The names that differ in some lines and that no row of the table explains.

    Args:
        theirs: Lines of their script.
        ours: Those in their place in ours.
        used: The names that ours uses elsewhere, which an omitted call may have had too.
    """
    removed, added = words(theirs) - words(ours), words(ours) - words(theirs)
    known = removed & TABLE.keys()
    may_be_added = PACKAGES.union(*(TABLE[name] for name in known))
    return (removed - known - PACKAGES - used) | (added - may_be_added)


def differences(name):
    """The lines that differ, without empty ones, and the number of lines of their script."""
    theirs, ours = (
        [line for line in (folder / f"{name}.py").read_text("utf-8").splitlines() if line.strip()]
        for folder in (THEIRS, OURS)
    )
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    changes = [place for tag, *place in matcher.get_opcodes() if tag != "equal"]
    return [(theirs[i:j], ours[k:l]) for i, j, k, l in changes], len(theirs)


@pytest.mark.parametrize("name", SCRIPTS)
def test_at_most_5_percent_of_the_lines_differ(name):
    found, lines = differences(name)
    assert found
    assert sum(max(len(theirs), len(ours)) for theirs, ours in found) <= 0.05 * lines


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_row_of_the_table_explains_each_line_that_differs(name):
    used = words((OURS / f"{name}.py").read_text("utf-8").splitlines())
    for theirs, ours in differences(name)[0]:
        assert not unexplained(theirs, ours, used), (theirs, ours)
        imports = all(line.startswith(("import ", "from ")) for line in (*theirs, *ours))
        assert imports or (words(theirs) - words(ours)) & TABLE.keys(), (theirs, ours)


@pytest.mark.parametrize(
    ("theirs", "ours", "names"),
    [
        ("y = torch.cat([x, x], dim=1)", "y = torch.ops.concatenate([x, x], axis=1)", set()),
        ("y = torch.nonsense(x)", "y = torch.ops.concatenate(x)", {"nonsense", "concatenate"}),
        ("y = x.unsqueeze(1)", "y = x.squeeze(1)", {"squeeze"}),
        ("y = model(x)", "y = model(x, weights)", {"weights"}),
    ],
)
def test_what_no_row_explains_is_found(theirs, ours, names):
    assert unexplained([theirs], [ours]) == names


# Types


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What mypy says of ours, by script: those of --strict, and lines with an Any."""
    pytest.importorskip("mypy", reason="needs mypy (extra dev)")
    options = ["--strict", "--disallow-any-expr", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, sorted(OURS.glob("*.py")))],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    strict, untyped = defaultdict(list), defaultdict(list)
    for file, line, message in re.findall(r"^(\S+)\.py:(\d+): error: (.*)$", done.stdout, re.M):
        if "Expression " not in message:
            strict[Path(file).stem].append((int(line), message))
        elif message.startswith('Expression has type "Any"'):
            untyped[Path(file).stem].append(int(line))
    assert untyped, done.stdout  # NumPy's own, and those of argparse
    return strict, untyped


UNTYPED = pytest.mark.xfail(reason="calls of modules have the type Any", strict=False)


@UNTYPED
@pytest.mark.parametrize("name", SCRIPTS)
def test_types_are_complete(name, complaints):
    assert complaints[0][name] == []


@UNTYPED
@pytest.mark.parametrize("name", SCRIPTS)
def test_no_any_in_models_and_in_training(name, complaints):
    """Where Tensors are; other lines have NumPy's Any, and lists of numbers are `tolist`'s."""
    text = (OURS / f"{name}.py").read_text("utf-8")
    parts = [
        part
        for part in ast.parse(text).body
        if (isinstance(part, ast.ClassDef) and any("Module" in ast.unparse(b) for b in part.bases))
        or (isinstance(part, ast.FunctionDef) and part.name == "train")
    ]
    assert len(parts) >= 2
    lines = {k for part in parts for k in range(part.lineno, part.end_lineno + 1)}
    found = [text.splitlines()[k - 1] for k in complaints[1][name] if k in lines]
    assert [line for line in found if ".tolist()" not in line] == []
