"""Files of tagged words: what is a word, where its tag is, and what is wrong with a line."""

import io
from pathlib import Path

import pytest

from anaphora.data import DataError, read_conllu, read_tagged

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ud_english_ewt"

CONLLU = """# newdoc id = 1
# text = Don't go,\tplease
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tthere\tthere\tADV\tRB\t_\t_\t_\t_\t_

# text = # 10 000
1\t#\t#\tSYM\tNN\t_\t0\troot\t_\t_
2\t10 000\t10 000\tNUM\tCD\t_\t1\tnummod\t_\t_


# text = Ja\u2028so
1\tJa\u2028so\tja\tINTJ\tUH\t_\t0\troot\t_\t_"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a file and returns its path."""

    def write(text, name="words.conllu"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_words_and_tags_of_each_sentence(write, line_end):
    path = write(CONLLU.replace("\n", line_end))
    words = [["Do", "n't", "go"], ["#", "10 000"], ["Ja\u2028so"]]
    tags = [["AUX", "PART", "VERB"], ["SYM", "NUM"], ["INTJ"]]
    assert read_conllu(path) == list(zip(words, tags, strict=True))
    language_tags = [["VB", "RB", "VB"], ["NN", "CD"], ["UH"]]
    assert read_conllu(str(path), column=5) == list(zip(words, language_tags, strict=True))


def test_two_columns_are_a_word_and_its_tag(write):
    path = write("#\tSYM\n1-2\tNUM\n\n \n3.1\tNUM\n# a\tX\n", "pairs.tsv")
    assert read_conllu(path, column=2) == [
        (["#", "1-2"], ["SYM", "NUM"]),
        (["3.1", "# a"], ["NUM", "X"]),
    ]


def test_the_files_of_a_folder_follow_each_other(write):
    write("1\tb\t_\tB\n", "b.conllu")
    path = write("1\ta\t_\tA\n", "a.conllu")
    write("no words", "a.txt")
    assert read_conllu(path.parent) == [(["a"], ["A"]), (["b"], ["B"])]
    write("1\tb\t_\tB\nb", "b.conllu")
    with pytest.raises(DataError, match=r"b\.conllu, line 2: there are 1 columns"):
        read_conllu(path.parent)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("# one\n\n1\ta\t_\n", 4, r"conllu, line 3: there are 3 columns, but column 4 .* CoNLL-U"),
        ("a\tX\n# two\n", 2, r"line 2: there are 1 columns, .* expected a word and its tag"),
        ("a\tb\tc\tX\n", 4, r"line 1: the first column is 'a'; .* give column 2"),
        ("1\ta\t_\tX\n-2\ta\t_\tX\n", 4, "line 2: the first column is '-2'"),
        ("1\t\t_\tX\n", 4, "line 1: the word is empty"),
        ("a\tX\nb\t\n", 2, "line 2: the tag is empty"),
        ("a\tX\nb\t \n", 2, "line 2: the tag is empty"),
        (" \tX\n", 2, "line 1: the word is empty"),
        ("a\tX\n\nb\tX \n", 2, r"line 3: the tag 'X ' and 'X' \(.*, line 1\) look the same"),
        ("# nothing\n\n", 4, r"words\.conllu has no sentence"),
        ("", 4, r"words\.conllu is empty"),
        ("1\ta\t_\tX\n", 1, "column is 1; expected 2, for lines of a word"),
    ],
)
def test_what_is_wrong_is_reported(write, text, column, message):
    with pytest.raises(DataError, match=message):
        read_conllu(write(text), column)


def test_a_folder_without_such_files_is_reported_and_no_option_is_proposed_that_it_lacks(tmp_path):
    with pytest.raises(
        DataError, match=r"matches '\*\.conllu' .* or, for a language model, give another"
    ):
        read_conllu(tmp_path)


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"none\.conllu does not exist"):
        read_conllu(tmp_path / "none.conllu")


def test_universal_dependencies_english_ewt():
    path = DATA / "en_ewt-ud-dev.conllu"
    if not path.is_file():
        pytest.skip("needs ud_english_ewt in ../shared/data")
    sentences = read_conllu(path)
    assert len(sentences) == 2001
    assert all(len(words) == len(tags) for words, tags in sentences)
    assert len({tag for _, tags in sentences for tag in tags}) == 17
    assert sentences[0][0] == ["From", "the", "AP", "comes", "this", "story", ":"]
    assert sentences[0][1] == ["ADP", "DET", "PROPN", "VERB", "DET", "NOUN", "PUNCT"]


# Files of columns


def test_columns_by_white_space(write):
    path = write(
        "-DOCSTART- -X- O\n\n# NN O\nEU\tNNP  I-ORG \n\n1 CD O\n2\u00a0000 CD O", "eng.train"
    )
    first = (["#", "EU"], ["O", "I-ORG"])
    assert read_tagged(path) == [first, (["1", "2\u00a0000"], ["O", "O"])]
    for tag_column in (2, "2", -2, "-2"):
        assert read_tagged(path, tag_column=tag_column)[0] == (["#", "EU"], ["NN", "NNP"])
    assert read_tagged(path, word_column=-1, tag_column=1)[0] == (["O", "I-ORG"], ["#", "EU"])
    assert read_tagged(path, separator="whitespace")[0] == first


@pytest.mark.parametrize(
    ("name", "text", "separator"),
    [
        ("a.tsv", "a b\tX\n# c\tY\n", None), ("a.txt", "a b\tX\n# c\tY\n", "tab"),
        ("a.txt", "a b\tX\n# c\tY\n", "\\t"), ("a.txt", "a b|X\n# c|Y\n", "|"),
        ("a.txt", "a b,X\n# c,Y\n", "comma"),
    ],
)  # fmt: skip
def test_separators(write, name, text, separator):
    assert read_tagged(write(text, name), separator=separator) == [(["a b", "# c"], ["X", "Y"])]


@pytest.mark.parametrize("name", ["a.conllu", "a.txt", "a.tsv"])
def test_conllu_is_told_by_its_columns_and_has_names(write, name):
    path = write(CONLLU, name)
    sentences = read_tagged(path)
    assert sentences[0] == (["Do", "n't", "go"], ["AUX", "PART", "VERB"])
    assert sentences[1][0] == ["#", "10 000"]
    assert read_tagged(path, "LEMMA", "XPOS")[0] == (["do", "not", "go"], ["VB", "RB", "VB"])
    assert read_tagged(path, tag_column="-3")[2] == (["Ja\u2028so"], ["root"])
    with pytest.raises(DataError, match=r"line 3: there is no column 'POS'; it has ID, FORM, LEM"):
        read_tagged(path, tag_column="POS")


def test_the_columns_of_conllu_plus_are_named_in_the_first_line(write):
    path = write(
        "# global.columns = ID FORM NER\n# x\n1\ta\tO\n2-3\tbc\t_\n2\tb\tB-X\n", "a.conllup"
    )
    assert read_tagged(path, tag_column="NER") == [(["a", "b"], ["O", "B-X"])]
    with pytest.raises(DataError, match="there is no column 'UPOS'; it has ID, FORM, NER"):
        read_tagged(path)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a X\nb c X\n",
            {},
            "line 2: there are 3 columns, where line 1 has 2; if words contain sp",
        ),
        ("a|X\nb|c|X\n", {"separator": "|"}, "line 2: there are 3 columns, where line 1 has 2$"),
        ("a X\n", {"tag_column": 3}, "line 1: there are 2 columns, but column 3 .* by white space"),
        ("a X\n", {"tag_column": "-3"}, "line 1: there are 2 columns, but column -3 was requested"),
        (
            "a X\n",
            {"tag_column": 0},
            "columns are numbered from 1, or from -1 for the last; 0 is not a column",
        ),
        ("a X\n", {"tag_column": "UPOS"}, "line 1: there is no column 'UPOS', as its columns have"),
        ("a||X\n", {"separator": "|", "tag_column": 2}, "line 1: the tag is empty"),
        ("-DOCSTART- O\n\n", {}, "has no sentence"),
        ("a X\n", {"separator": ""}, "separator is empty"),
    ],
)
def test_columns_that_are_refused(write, text, options, message):
    with pytest.raises(DataError, match=message):
        read_tagged(write(text, "a.txt"), **options)


def test_words_and_tags_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a X\n\nb Y\n")))
    assert read_tagged("-") == [(["a"], ["X"]), (["b"], ["Y"])]


def test_tables_of_lists(write):
    path = write(
        '{"tokens": ["a", "b"], "tags": ["X", 1]}\n{"tokens": [], "tags": []}\n', "a.jsonl"
    )
    assert read_tagged(path) == [(["a", "b"], ["X", "1"])]
    assert read_tagged(path, "tags", "tokens") == [(["X", "1"], ["a", "b"])]
    with pytest.raises(DataError, match=r"no column 'ner'; it has 'tokens', 'tags'; .* --tag-col"):
        read_tagged(path, tag_column="ner")
    for row, message in [
        ('{"tokens": ["a"], "tags": []}', "line 1: there are 1 words and 0 tags"),
        ('{"tokens": "a b", "tags": ["X"]}', "line 1: column 'tokens' is not a list; expected"),
        ('{"tokens": ["a"], "tags": [null]}', "line 1: a tag is empty"),
        ('{"tokens": [["a"]], "tags": ["X"]}', r"line 1: column 'tokens' has \['a'\]; expected"),
        ('{"tokens": [], "tags": []}', "has no sentence"),
    ]:
        with pytest.raises(DataError, match=message):
            read_tagged(write(row, "a.jsonl"))


@pytest.mark.parametrize(
    ("name", "sentences", "words", "spans"),
    [("esp.train", 8323, 264715, 18797), ("ned.train", 15806, 202644, 13344)],
)
def test_conll_2002(name, sentences, words, spans):
    path = DATA.parent / "conll2002" / name
    if not path.is_file():
        pytest.skip("needs conll2002 in ../shared/data")
    found = read_tagged(path)
    tags = [tag for _, of_words in found for tag in of_words]
    assert (len(found), len(tags)) == (sentences, words)
    assert sum(tag.startswith("B-") for tag in tags) == spans
    kinds = {f"{b}-{kind}" for b in "BI" for kind in ("LOC", "MISC", "ORG", "PER")}
    assert set(tags) == {"O", *kinds}
