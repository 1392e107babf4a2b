"""Whatever is in a model directory: it is used, or an ArtifactError names file and field."""

import copy
import json
import os
import random
import shutil

import numpy as np
import pytest
import safetensors.numpy

from anaphora.artifact import ArtifactError, ModelDirectory, read_weights, write_weights
from anaphora.cells import Cell, cell
from anaphora.equations import sigmoid, tanh
from anaphora.models import SequenceRegressor, VectorToSequence
from anaphora.training import TASKS, TrainingDiverged, prepare_training, resume_training, task_of

CHANGES = 60 if os.environ.get("ANAPHORA_ALL_CASES") == "1" else 20


@cell(gates="f n", state="h", parameters="p")
def forgetful(f, n, h, p):
    f = sigmoid(f + p * h)
    return f * h + (1.5 - f) * tanh(n.x)


SMALL = {"hidden_size": 4, "batch_size": 2, "max_steps": 3, "evaluate_every": 2, "log_every": 1}
OF_TEXT = {**SMALL, "embedding_size": 3, "window": 5, "evaluation_batch_size": 2}
KINDS = {
    "char": ("language-model", ["data.txt"], {**OF_TEXT, "minimum_count": 1}),
    "cell": ("language-model", ["data.txt"], {**OF_TEXT, "cell": forgetful}),
    "word": (
        "language-model", ["data.txt"],
        {**OF_TEXT, "level": "word", "batching": "sentences", "schedule": "plateau", "warm_up": 2},
    ),
    "bpe": ("language-model", ["data.txt"], {**OF_TEXT, "level": "bpe", "vocabulary_size": 260}),
    "classify": ("classify", ["c.tsv"], {**SMALL, "column": "text", "label_column": "label"}),
    "series": ("classify", ["s.ts"], SMALL),
    "tag": (
        "tag", ["t.tsv"],
        {**SMALL, "tag_column": 2, "character_embedding_size": 2, "character_hidden_size": 3},
    ),
    "translate": ("translate", ["a.en", "a.de"], {**SMALL, "minimum_count": 1}),
}  # fmt: skip
FILES = {
    "data.txt": "to be or not to be that is the question\n" * 12,
    "c.tsv": "text\tlabel\n" + "oh ah\tvowel\nhm hm\tconsonant\nohh\tvowel\n" * 6,
    "s.ts": "@data\n" + "1,2,4:3,1,1:a\n2,3:5,4:b\n" * 6,
    "t.tsv": "It\tPRON\nrains\tVERB\n\nWe\tPRON\ngo\tVERB\nhome\tNOUN\n\n" * 6,
    "a.en": "a dog\nthe cat sees\na cat\n" * 6,
    "a.de": "ein hund\ndie katze sieht\neine katze\n" * 6,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained directory of each kind, made when it is asked for."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, text in FILES.items():
        (folder / name).write_text(text)

    def directory(kind):
        task, files, options = KINDS[kind]
        if not (folder / kind).exists():
            given = TASKS[task].options.make(**options)
            prepare_training(TASKS[task], given, folder / kind, [folder / f for f in files]).run()
        return folder / kind

    return directory


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of a trained directory, to damage."""

    def directory(kind):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        return ModelDirectory(shutil.copytree(trained(kind), tmp_path / "model"))

    return directory


def use(home):
    """All that commands read of a directory, and a step of the training that continues."""
    task = task_of(home.path)
    task.load_options(home.path)
    task.load(home.path)
    home.read_metrics()
    resume_training(task, home.path, {"max_steps": 4}).run()


FILE_NAMES = {
    "config": "config.json", "tokenizer": "tokenizer.json", "metrics": "metrics.jsonl",
    "checkpoint": "checkpoint/state.safetensors",
}  # fmt: skip


def read(home, name):
    if name == "checkpoint":
        return read_weights(home.checkpoint)[1]
    if name == "metrics":
        return home.read_metrics()[0]
    return json.loads((home.path / FILE_NAMES[name]).read_text())


def write(home, name, value):
    """Write a value as it is, also what our own writers refuse."""
    if name == "checkpoint":
        metadata = {"anaphora": json.dumps(value)}
        arrays = read_weights(home.checkpoint)[0]
        home.checkpoint.write_bytes(safetensors.numpy.save(arrays, metadata))
    elif name == "metrics":
        rest = home.metrics.read_text().split("\n", 1)[1]
        home.metrics.write_text(f"{json.dumps(value)}\n{rest}")
    else:
        (home.path / FILE_NAMES[name]).write_text(json.dumps(value))


def changed(document, path, value):
    """A copy of a document with another value at a path; `...` takes the value away."""
    if not path:
        return value
    document = copy.deepcopy(document)
    owner = document
    for step in path[:-1]:
        owner = owner[step]
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "message"),
    [
        # Sizes are compared with the weights before there is memory for them.
        ("char", "config", "model.num_layers", 100_000_000,
         "model.num_layers is 100000000, but model.safetensors has 7 arrays"),
        ("char", "config", "model.hidden_size", 8000,
         r"model.hidden_size 8000 makes recurrent.weight_ih_l0 \[32000, 3\], but in model.safet.* "
         r"it is \[16, 3\]; restore"),
        ("char", "config", "model.hidden_size", 10**9, "hidden_size must be at most 100,000,000"),
        ("char", "config", "model.hidden_size", 10**30, "hidden_size is 1e\\+30; expected a numb"),
        ("tag", "config", "model.hidden_size", 8000, "model.hidden_size 8000 makes "),
        ("tag", "config", "model.num_tags", 4000, "num_tags 4000 makes output.weight"),
        ("tag", "config", "model.character_hidden_size", 9000, "character_hidden_size 9000 makes "),
        ("translate", "config", "model.num_layers", 10**8, "num_layers is 100000000, but model.sa"),
        ("translate", "config", "model.hidden_size", 8000, "model.hidden_size 8000 makes "),
        ("series", "config", "model.input_size", 70_000, "model.input_size 70000 makes "),
        ("translate", "config", "model.end_id", 2, "end_id is 2, but tokenizer.json has 0"),
        ("char", "config", "model.embedding_size", True, "embedding_size is True; expected int"),
        ("char", "config", "model.tied", 1, "model.tied is 1; expected bool"),
        ("char", "config", "model.tied", True, r"tied needs equal embedding_size \(3\) and hidde"),
        ("char", "config", "model.dtype", "float64",
         r"model.safetensors: .* is float32 .*; expected float64"),
        ("char", "config", "model.dtype", "float16", "dtype 'float16' is not one of float32, "
                                                     "float64"),
        ("char", "config", "model.cell", "coupled_lstm", "makes recurrent.weight_ih_l0"),
        ("char", "config", "model.initialization", 1e308, r"initialization 1e\+308: .* at most 3."),
        ("char", "config", "model.forget_bias", 1e308, "forget_bias must be a finite number of fl"),
        ("char", "config", "model.colour", "red", "unknown options? colour"),
        ("cell", "config", "model.cell", {}, "model.cell has no name, which is required"),
        ("cell", "config", "model.cell.gates.0", 1, r"model.cell.gates\[0\] is 1; expected str"),
        ("cell", "config", "model.cell.gates", ["f"], "model.cell.inputs has 'n.x', which is not "),
        ("cell", "config", "model.cell.instructions.1.0", "exec", "instruction 1 is 'exec"),
        ("cell", "config", "model.cell.instructions.1.1", 99, "instruction 1 reads 99"),
        ("cell", "config", "model.cell.instructions.1.1", True, r"cell.instructions\[1\]"),
        ("cell", "config", "model.cell.outputs", [1.0], "model.cell: .* the equations retu"),
        ("cell", "config", "model.cell.states", ["h", "c"], "model.cell: program: .* 2 output"),
        ("cell", "config", "model.cell.named.h", ..., "model.cell.named has no state 'h'"),
        ("cell", "config", "model.cell.parameters", [], "model.cell.inputs has 'p', which"),
        # Other parts of config.json.
        ("char", "config", "results", [], r"config.json: results is \[\]; expected object"),
        ("char", "config", "results.step", -5, "results.step is -5; expected int >= 0"),
        ("char", "config", "results.loss", "low", "results.loss is 'low'; expected float"),
        ("char", "config", "model", [], r"config.json: model is \[\]; expected object"),
        ("char", "config", "training.window", 2.5, "training.window is 2.5; expected int"),
        ("char", "config", "training.seed", 2**70, "training.seed is 1.18e\\+21; expected a numbe"),
        ("char", "config", "data.level", "word", "data.level is 'word', but in tokenizer.json .*c"),
        ("word", "config", "data.sentence_start", True, "data.sentence_start is True, but in tok"),
        ("char", "config", "sources", {"texts": 3}, "sources.texts is 3; expected str"),
        ("char", "config", "anaphora", ..., "config.json: there is no anaphora, which is required"),
        ("char", "config", "format", True, 'has "format" True; expected 2'),
        ("char", "config", "task", 5, "config.json: task is 5; expected str"),
        # Tokenizers and vocabularies.
        ("char", "tokenizer", "", [], r"tokenizer.json: the value is \[\]; expected object"),
        ("char", "tokenizer", "characters", 3, "characters is 3; expected str"),
        ("word", "tokenizer", "words.1", None, r"words\[1\] is None; expected str"),
        ("classify", "tokenizer", "classes.0", 1, r"tokenizer.json: classes\[0\] is 1; expected s"),
        ("classify", "tokenizer", "classes.0", "vowel", "classes has 'vowel' twice; expected each"),
        ("classify", "tokenizer", "tokenizer", ..., "there is no tokenizer, which is required"),
        ("series", "tokenizer", "scale", [0, 0], r"scale\[0\] is 0.0; expected a number above 0"),
        ("series", "tokenizer", "scale.1", -1.5, r"scale\[1\] is -1.5; expected a number above 0"),
        ("series", "tokenizer", "mean.0", None, r"mean\[0\] is None; expected float"),
        ("series", "tokenizer", "mean.0", float("nan"), "tokenizer.json: .* NaN is not a JSON val"),
        ("series", "tokenizer", "mean", [1.0], "mean has 1 numbers and scale 2; expected one of"),
        ("tag", "tokenizer", "lowercase", "no", "lowercase is 'no'; expected bool"),
        ("tag", "tokenizer", "tags.0", "VERB", "tags has 'VERB' twice"),
        ("translate", "tokenizer", "source", ..., "tokenizers? .*target"),
        # Byte pairs: nothing that a file brings along, but the vocabulary and its merges.
        ("bpe", "tokenizer", "model.truncation",
         {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
         "model.truncation is an object; expected None"),
        ("bpe", "tokenizer", "model.padding", {"strategy": "BatchLongest"}, "model.padding is an "),
        ("bpe", "tokenizer", "model.normalizer", {"type": "Lowercase"}, "model.normalizer is an o"),
        ("bpe", "tokenizer", "model.model.dropout", 0.5, "model.model.dropout is 0.5; expected No"),
        ("bpe", "tokenizer", "model.pre_tokenizer.pretokenizers.0.pattern", {"Regex": "(a+)+$"},
         r"model.pre_tokenizer.pretokenizers\[0\].pattern.Regex is '\(a\+\)\+\$'; expected None"),
        ("bpe", "tokenizer", "model.pre_tokenizer", None, "model.pre_tokenizer is None; expected"),
        ("bpe", "tokenizer", "model.post_processor", {"type": "ByteLevel"}, "post_processor is an"),
        ("bpe", "tokenizer", "model.added_tokens", [{"id": 0}], "model.added_tokens is "),
        ("bpe", "tokenizer", "model.model.type", "Unigram", "model.model.type is 'Unigram'; expec"),
        ("bpe", "tokenizer", "model.model.vocab.a", ..., "vocab has no 'a', which represents the "
                                                         "b"),
        ("bpe", "tokenizer", "model.model.merges.0", ["a", "??"], r"merges\[0\] is \['a', '\?\?'"),
        ("bpe", "tokenizer", "model.model.vocab.a", 1, "numbered from 0 without gap"),
        # Metrics.
        ("char", "metrics", "step", "one", "metrics.jsonl: line 1: step is 'one'; expected int"),
        ("char", "metrics", "loss", ..., "line 1: there is no loss, which is required; remove"),
        ("char", "metrics", "loss", "low", "line 1: loss is 'low'; expected float; remove that li"),
        # The checkpoint.
        ("char", "checkpoint", "", {}, "state.safetensors: .* there is no progress, which is requ"),
        ("char", "checkpoint", "progress", 7, "progress is 7; expected object"),
        ("char", "checkpoint", "progress.step", "3", "progress.step is '3'; expected int"),
        ("char", "checkpoint", "progress.step", -5, "progress.step is -5; expected int >= 0"),
        ("char", "checkpoint", "progress.best_loss", [1], "best_loss is a list of 1; expected flo"),
        ("char", "checkpoint", "progress.position", 2_000, "position is 2000; expected at most"),
        ("char", "checkpoint", "progress", {"step": 99, "position": 99},
         r"progress.position is 99; expected less than the \d+ batches"),
        ("char", "checkpoint", "progress.seconds", 10**400, "seconds is 1000.*; expected a smalle"),
        ("char", "checkpoint", "random.state", {"state": 1}, "state.safetensors: "),
        ("char", "checkpoint", "random.state.inc", 2**200, "state.safetensors: "),
        ("char", "checkpoint", "random.state.inc", "x", "random.state.inc is 'x'; expected int"),
        ("char", "checkpoint", "optimizer.options.weight_decay", 5, "optimizer.options are .* con"),
        ("char", "checkpoint", "optimizer.steps", {"output.bias": -1}, "steps.* expected int >= 0"),
        ("char", "checkpoint", "optimizer.learning_rate", -1.0, "learning_rate is -1.0; expected "),
        ("word", "checkpoint", "schedule.of.best_loss", "x", "schedule.of.best_loss is 'x'; expec"),
        ("char", "checkpoint", "schedule", None, "schedule is None, which contradicts config.json"),
        ("char", "checkpoint", "state_is_tuple", False, "state_is_tuple is False"),
        ("char", "checkpoint", "metrics_size", -1, "metrics_size is -1; expected int >= 0"),
    ],
)  # fmt: skip
def test_a_damaged_value_is_named(copied, kind, name, path, value, message):
    home = copied(kind)
    steps = [int(step) if step.isdigit() else step for step in path.split(".")] if path else []
    write(home, name, changed(read(home, name), steps, value))
    with pytest.raises(ArtifactError, match=message) as caught:
        use(home)
    assert str(home.path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2, "format": 1}', "the name 'format' occurs twice in an object"),
        ('{"format": 2, "step": 1e400}', "the number 1e400 is too large"),
        ('{"format": 2, "a": %s}' % ("[" * 100 + "]" * 100), "nested more than 64 deep"),
        ('{"format": 2, "a": %s}' % ("[" * 100_000), "config.json: is not valid JSON"),
        ('{"format": 2, "a": Infinity}', "Infinity is not a JSON value"),
    ],
)
def test_json_that_is_not_ours_is_refused(copied, text, message):
    home = copied("char")
    home.config.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        task_of(home.path)


def leaves(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else list(enumerate(value))[:4]
        for key, inner in items:
            yield from leaves(inner, (*path, key))


VALUES = (
    ..., None, True, -1, 0, 3, 0.5, 10**8, 10**30, 1e308, float("nan"), "", "x", "\ud800", [], {},
    ["a"], {"a": 1},
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_is_used_or_named(copied, kind):
    generator = random.Random(kind)
    for _ in range(CHANGES):
        home = copied(kind)
        name = generator.choice(list(FILE_NAMES))
        document = read(home, name)
        path, value = generator.choice(list(leaves(document))), generator.choice(VALUES)
        if not path and value is ...:
            continue
        write(home, name, changed(document, path, value))
        try:
            use(home)
            problem = None
        except ArtifactError as error:
            problem = str(error)
        except TrainingDiverged:  # of a learning rate such as 1e308
            continue
        assert problem is None or str(home.path) in problem, (name, path, value)


def test_any_change_of_a_cell_is_used_or_named():
    program = json.loads(json.dumps(forgetful.to_dict()))
    refused, unnamed = 0, []
    for path in leaves(program):
        for value in VALUES:
            if not path and value is ...:
                continue
            try:
                made = Cell.from_dict(changed(program, path, value))
            except ValueError as error:
                unnamed += [] if str(error).startswith("cell") else [(path, value, str(error))]
                refused += 1
            else:
                assert Cell.from_dict(made.to_dict()).program == made.program
    assert not unnamed
    assert refused > 500


# Arrays


def with_array(path, name, change):
    arrays, metadata = read_weights(path)
    array = change(arrays.pop(name))
    write_weights(path, arrays if array is None else {**arrays, name: array}, metadata)


def first(value):
    def change(array):
        array.reshape(-1)[0] = value
        return array

    return change


WRONG = {
    "missing": (lambda a: None, "has no array {name}"),
    "int32": (lambda a: a.astype(np.int32), r"{name} is int32 .*; expected float32"),
    "float64": (lambda a: a.astype(np.float64), r"{name} is float64 .*; expected float32"),
    "boolean": (lambda a: a.astype(bool), r"{name} is bool .*; expected float32"),
    "nan": (first(np.nan), r"{name}\[[0, ]+\] is nan; expected finite numbers"),
    "infinite": (first(-np.inf), r"{name}\[[0, ]+\] is -inf; expected finite numbers"),
    "shape": (lambda a: a[None], r"{name}"),
}
NAMES_OF_ARRAYS = [
    ("char", "model.safetensors", "output.weight"),
    ("classify", "model.safetensors", "recurrent.weight_hh_l0_reverse"),
    ("tag", "model.safetensors", "characters.embedding.weight"),
    ("translate", "model.safetensors", "decoder.recurrent.bias_hh_l0"),
    ("char", "checkpoint/state.safetensors", "model.recurrent.bias_ih_l0"),
    ("char", "checkpoint/state.safetensors", "optimizer.embedding.weight.second_moment"),
    ("char", "checkpoint/state.safetensors", "state.1"),
    ("series", "checkpoint/state.safetensors", "optimizer.output.bias.first_moment"),
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kind", "file", "name"), NAMES_OF_ARRAYS)
def test_weights_that_are_not_weights_are_named(copied, kind, file, name, wrong):
    home = copied(kind)
    change, message = WRONG[wrong]
    with_array(home.path / file, name, change)
    with pytest.raises(
        ArtifactError, match=message.format(name=name.replace(".", r"\."))
    ) as caught:
        use(home)
    assert str(home.path) in str(caught.value)


@pytest.mark.parametrize("model_type", [SequenceRegressor, VectorToSequence])
def test_models_without_a_task_of_their_own_are_checked_too(tmp_path, model_type):
    sizes = {"input_size": 3, "hidden_size": 4}
    more = {"num_outputs": 2} if model_type is SequenceRegressor else {"vocabulary_size": 5}
    home = ModelDirectory.create(tmp_path / "model")
    model_type(**sizes, **more).save(home)
    with_array(
        home.weights, "output.bias" if "num_outputs" in more else "initial.bias", first(np.nan)
    )
    with pytest.raises(ArtifactError, match=r"bias\[0\] is nan"):
        model_type.load(home.path)
    write(home, "config", changed(read(home, "config"), ["model", "hidden_size"], 8000))
    with pytest.raises(ArtifactError, match=r"config.json: model.hidden_size 8000 makes"):
        model_type.load(home.path)


@pytest.mark.parametrize(
    ("kind", "name", "change", "message"),
    [
        ("classify", "inputs", first(200), "inputs has 200; expected integers of 0 to "),
        ("classify", "inputs", first(-1), "inputs has -1; expected integers of 0 to "),
        (
            "classify",
            "inputs",
            lambda a: a.astype(np.float32),
            "inputs is float32 .* integers",
        ),
        ("classify", "targets", first(2), "targets has 2; expected integers of 0 to 1"),
        ("classify", "targets", lambda a: a[1:], r"targets has \d+ rows; expected \d+"),
        ("classify", "lengths", first(-3), "lengths has -3; expected integers of at least 0"),
        (
            "classify",
            "lengths",
            first(99),
            r"lengths adds up to \d+; expected \d+, the number of st",
        ),
        ("classify", "lengths", lambda a: None, "train.safetensors: has no array lengths"),
        ("series", "inputs", lambda a: a[:, 0], r"inputs is float64 \[.*\]; expected rows of 2 fl"),
        ("series", "inputs", lambda a: a[:, :1], "inputs has rows of 1; expected 2"),
        ("series", "inputs", first(np.nan), r"inputs\[0, 0\] is nan; expected finite numbers"),
        ("tag", "words", first(4000), "words has 4000; expected integers of 0 to "),
        ("tag", "tags", first(3), "tags has 3; expected integers of 0 to 2"),
        ("tag", "characters", first(99), "characters has 99; expected integers of 0 to "),
        ("tag", "character_lengths", first(99), "character_lengths adds up to "),
        ("translate", "source", first(99), "source has 99; expected integers of 0 to "),
        ("translate", "target", lambda a: a[:0], "train.safetensors: the target has no sentence"),
        ("translate", "target", lambda a: a[:-1], "the last sentence of the target does not end"),
        ("translate", "extra", None, "has an unknown array extra"),
    ],
)
def test_data_to_train_on_that_is_damaged_is_named(copied, kind, name, change, message):
    home = copied(kind)
    path = home.checkpoint.parent / "train.safetensors"
    if change is None:
        arrays, _ = read_weights(path)
        write_weights(path, {**arrays, name: np.zeros(1)})
    else:
        with_array(path, name, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        use(home)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first(200), r"\.npy has the id 200; expected ids from 0 to 13, those of the vocabulary"),
        (lambda a: a.astype(float), r"\.npy holds float64"),
    ],
)
@pytest.mark.parametrize("name", ["train.npy", "validation.npy"])
def test_ids_out_of_range_are_named(copied, name, change, message):
    home = copied("char")
    path = home.checkpoint.parent / name
    np.save(path, change(np.load(path.with_name("train.npy"))))
    with pytest.raises(ArtifactError, match=message):
        use(home)


def test_metadata_of_others_is_none_and_of_a_checkpoint_is_needed(copied):
    """A header may say that there is no metadata by null."""
    home = copied("char")
    for path in (home.weights, home.checkpoint):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = {**json.loads(data[8 : 8 + size]), "__metadata__": None}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
        assert read_weights(path)[1] == {}
    with pytest.raises(ArtifactError, match=r"state.safetensors: .* there is no progress"):
        use(home)


def test_a_loaded_model_is_the_one_that_was_saved(trained):
    """Its parameters get their arrays without being sampled first; they can be trained."""
    for kind in KINDS:
        home = ModelDirectory(trained(kind))
        model = task_of(home.path).load(home.path)
        arrays = read_weights(home.weights)[0]
        for name, parameter in model.named_parameters():
            assert parameter.data.tobytes() == arrays[name].tobytes()
            assert not parameter.data.flags.writeable
            with parameter.writing() as array:
                array += 1
