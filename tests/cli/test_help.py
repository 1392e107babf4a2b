"""Help: it fits a screen, shows every option by section, and cuts no name."""

import re

import pytest
import typer

from anaphora.cli.app import app
from anaphora.cli.help import CONTEXT_SETTINGS

PROGRAM = typer.main.get_command(app)
COMMANDS = sorted(PROGRAM.commands)
SECTIONED = ("train", "generate", "evaluate", "predict")


@pytest.fixture
def help_of(capsys, monkeypatch):
    def run(*arguments, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        PROGRAM.main([*arguments], prog_name="anaphora", standalone_mode=False)
        return capsys.readouterr().out

    return run


def options_of(command):
    """All names of each option, and its section."""
    return [
        ([*p.opts, *p.secondary_opts], (p.rich_help_panel or "").lower())
        for p in PROGRAM.commands[command].params
        if p.param_type_name == "option"
    ]


def listed(out):
    """The names at the beginning of lines."""
    lines = re.findall(r"^  (-.*?)(?:  |$)", out, re.MULTILINE)
    return {name for line in lines for name in re.findall(r"(?<!\S)--?[\w-]+", line)}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [80, 200])
def test_all_options_are_there_and_no_name_is_cut(help_of, command, columns):
    out = help_of(command, "--help", "all", columns=columns)
    names = {name for names, _ in options_of(command) for name in names}
    assert listed(out) == {*names, "-h", "--help"}
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= min(columns, CONTEXT_SETTINGS["max_content_width"])
    text = PROGRAM.commands[command].help
    assert " ".join(text.split()) in " ".join(out.split())


def test_the_list_of_commands_has_a_full_sentence_for_each(help_of):
    out = help_of("--help")
    found = dict(re.findall(r"^  (\w+) +([A-Z].*)$", out.partition("Commands:")[2], re.MULTILINE))
    assert sorted(found) == COMMANDS
    assert all(text.endswith(".") and not text.endswith("...") for text in found.values())


def test_defaults_that_are_not_given_are_not_shown_as_differing(help_of):
    text = " ".join(help_of("train", "--help", "all").split())
    assert "(several: price,area), in tables. May be repeated. --word-column" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(help_of, command):
    out = help_of(command, "--help")
    assert len(out.splitlines()) < 50  # and the prompt
    assert max(map(len, out.splitlines())) <= 80
    assert PROGRAM.commands[command].help.split("\n\n")[0] in " ".join(out.split())


@pytest.mark.parametrize("command", SECTIONED)
def test_a_section_has_its_options_and_no_others(help_of, command):
    sections = {section for _, section in options_of(command)} - {""}
    short = help_of(command, "--help")
    for section in sections:
        names = {name for names, its in options_of(command) if its == section for name in names}
        assert listed(help_of(command, "--help", section)) == names
        assert section in short.split("by section: --help ")[1]
    assert f"All options: anaphora {command} --help all; " in short
    own = {name for names, section in options_of(command) if not section for name in names}
    assert own < listed(short) < listed(help_of(command, "--help", "all"))


def test_common_options_come_without_being_asked_for(help_of):
    short = help_of("train", "--help")
    assert {"--cell", "--hidden-size", "--epochs", "--learning-rate"} < listed(short)
    assert not {"--clip-value", "--forget-bias", "--tensorboard"} & listed(short)
    assert "--hidden-size N    Units of each recurrent layer.\n" in short  # whatever the task
    assert "--num-layers N     Recurrent layers.  [default: 1]\n" in short


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_short_name(help_of, command):
    command = [command] if command else []
    assert help_of(*command, "-h") == help_of(*command, "--help")
    if command and command[0] in SECTIONED:
        assert help_of(*command, "-h", "all") == help_of(*command, "--help", "all")


def test_another_word_after_help_is_an_argument(help_of):
    assert help_of("train", "--help", "text.txt") == help_of("train", "--help")
    assert help_of("train", "model", "--help") == help_of("train", "--help")
    assert help_of("train", "--help", "--", "model") == help_of("train", "--help")
    assert help_of("train", "text.txt", "--help", "model") == help_of("train", "-h", "model")


def test_what_takes_a_word_of_some_is_not_wider_for_it(help_of):
    out = help_of("train", "--help", "model")
    assert "--attention NAME translate: How the decoder attends to the source. One of " in " ".join(
        out.split()
    )


def test_a_command_imports_no_other(fresh_interpreter):
    program = "import sys; from anaphora.cli.app import prepare; prepare({}); print(*sys.modules)"
    for arguments, wanted in ([], set()), (["--help"], set()), (["info", "train"], {"info"}):
        modules = set(fresh_interpreter(program.format(arguments)).split())
        assert modules & {f"anaphora.cli.{name}" for name in ("info", "serve", "train")} == {
            f"anaphora.cli.{name}" for name in wanted
        }
