"""`anaphora generate` for many prompts, with stop texts, penalties, and next tokens."""

import json

import pytest

from anaphora.generation import Sampler, generate, next_tokens
from anaphora.models import LanguageModel

PROMPTS = ["A word ", "", "it is"]
RULE = "-" * 60


@pytest.fixture
def prompts(trained):
    path = trained.folder / "prompts.txt"
    path.write_text("".join(prompt + "\n" for prompt in PROMPTS))
    return path


def records_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_many_prompts_have_the_texts_that_they_have_alone(trained, prompts):
    arguments = ["generate", "model", "--length", "40", "--json"]
    out, err = trained.run(*arguments, "--prompts", "prompts.txt", "--seed", "5")
    assert err == ""
    records = records_of(out)
    assert [(r["prompt"], r["seed"]) for r in records] == [
        (p, 5 + k) for k, p in enumerate(PROMPTS)
    ]
    for k, (record, prompt) in enumerate(zip(records, PROMPTS, strict=True)):
        alone, _ = trained.run(*arguments, "--prompt", prompt, "--seed", str(5 + k))
        assert records_of(alone) == [record]
    again, _ = trained.run(*arguments, "--prompts", "-", "--seed", "5", stdin=prompts.read_text())
    assert again == out
    given = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    again, _ = trained.run(*arguments, *given, "--seed", "5")
    assert again == out
    both, _ = trained.run(*arguments, "--prompt", "the", "--prompts", "prompts.txt", "--seed", "4")
    assert both.splitlines()[1:] == out.splitlines()


def test_many_prompts_without_json(trained, prompts):
    arguments = ["generate", "model", "--length", "40", "--seed", "5", "--prompts", "prompts.txt"]
    out, _ = trained.run(*arguments)
    records = records_of(trained.run(*arguments, "--json")[0])
    assert out == "".join(f"{record['text']}\n{RULE}\n" for record in records)


def test_options_reach_the_sampler(trained):
    model = LanguageModel.load(trained.folder / "model")
    tokenizer = model.codec
    sampler = Sampler(0.7, 9, 0.9, seed=3, repetition_penalty=1.2, no_repeat_ngram=5)
    options = (
        "--length", "80", "--temperature", "0.7", "--top-k", "9", "--top-p", "0.9", "--seed", "3",
        "--repetition-penalty", "1.2", "--no-repeat-ngram", "5",
    )  # fmt: skip
    expected = "".join(generate(model, tokenizer, "A word ", 80, sampler))
    out, _ = trained.run("generate", "model", "--prompt", "A word ", *options)
    assert out == expected + "\n"
    stops = [expected[30:32], expected[50]]
    end = "".join(generate(model, tokenizer, "A word ", 80, sampler, stop=stops))
    given = [word for stop in stops for word in ("--stop", stop)]
    out, _ = trained.run("generate", "model", "--prompt", "A word ", *options, *given)
    assert out == end + "\n"
    assert len(end) <= 50


def test_next_tokens(trained, prompts):
    model = LanguageModel.load(trained.folder / "model")
    tokenizer = model.codec
    out, _ = trained.run("generate", "model", "--prompts", "prompts.txt", "--next", "3", "--json")
    for record, prompt in zip(records_of(out), PROMPTS, strict=True):
        found = next_tokens(model, tokenizer, prompt, 3)
        assert record == {
            "prompt": prompt,
            "next": [{"token": one.token, "probability": one.probability} for one in found],
        }
    out, _ = trained.run("generate", "model", "--prompt", "A word", "--next", "2")
    one, other = next_tokens(model, tokenizer, "A word", 2)
    assert out == (
        f"A word\n{one.probability:.4f}\t{one.token!r}\n{other.probability:.4f}\t{other.token!r}\n"
        f"{RULE}\n"
    )


def test_unknown_words_of_prompts_are_reported(command):
    command.train("--level", "word", "--minimum-count", "2", "--max-steps", "2")
    out, err = command.run(
        "generate", "model", "--prompts", "-", "--length", "3", "--json", stdin="A gnu\nyak\n"
    )
    assert records_of(out)[0]["text"].split()[1] == "<unk>"
    assert (
        "anaphora: the prompts: 2 words are not in the vocabulary, and read as unknown: 'gnu', "
        "'yak'; " in err
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["--stop", ""], None, 2, "--stop is empty; omit it"),
        (["--repetition-penalty", "0"], None, 2, "repetition_penalty is 0.0; expected a finite"),
        (["--no-repeat-ngram", "-1"], None, 2, "no_repeat_ngram is -1; expected an integer >= 0"),
        (["--next", "3", "--top-k", "2"], None, 2, "generates nothing; omit --top-k"),
        (["--prompts", "-"], "word\nw\u2603rd\n", 1, "standard input, line 2: the character"),
        (["--prompt", "a", "--prompt", "\u2603"], None, 1, "prompt 2: the character"),
        (["--prompts", "missing.txt"], None, 1, "missing.txt"),
        (["--no-repeat-ngram", "1"], None, 1, "no_repeat_ngram 1 leaves no token; choose a larger"),
    ],
)
def test_messages(trained, arguments, stdin, code, message):
    _, err = trained.run("generate", "model", *arguments, code=code, stdin=stdin)
    assert message in err
