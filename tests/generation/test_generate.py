"""Generation: what the model reads, what is shown, and how tokens are drawn."""

import dataclasses
import sys

import numpy as np
import pytest

from anaphora import matmul_precision, random
from anaphora.data import BPETokenizer, CharacterTokenizer, DataError, WordTokenizer
from anaphora.engine import current_matmul_precision
from anaphora.generation import Sampler, generate, generate_batch, generate_ids, next_tokens
from anaphora.generation.generate import TextStream
from anaphora.models import LanguageModel, LanguageModelSession

GREEDY = Sampler(temperature=0)


def make(tokenizer, **options):
    random.seed(2)
    return LanguageModel(tokenizer.vocabulary_size, hidden_size=6, dtype="float64", **options)


@pytest.fixture
def characters():
    return CharacterTokenizer.fit("to be or not\n")


class Recorder:
    """A model that keeps the ids it was given and always expects the same token."""

    training = True

    def __init__(self, size, favourite):
        self.size, self.favourite, self.read = size, favourite, []

    def eval(self):
        self.training = False

    def train(self, mode=True):
        self.training = mode

    def __call__(self, ids, state):
        assert not self.training
        self.read.append(np.asarray(ids)[:, 0].tolist())
        logits = np.zeros((len(ids), 1, self.size))
        logits[..., self.favourite] = 1

        class Logits:
            data = logits

        return Logits(), (state or 0) + 1


def context_and_text(tokenizer, prompt, favourite, length=2):
    model = Recorder(tokenizer.vocabulary_size, favourite)
    text = "".join(generate(model, tokenizer, prompt, length, GREEDY))
    return model.read, text


def test_greedy_is_the_argmax_of_the_full_text_so_far(characters):
    model = make(characters).eval()
    ids = [int(id) for id in characters.encode("to be")]
    for id in generate_ids_list(model, ids, 12):
        logits, _ = model(np.array(ids)[:, None])
        assert id == logits.data[-1, 0].argmax()
        ids.append(id)


def generate_ids_list(model, context, count):
    generator = generate_ids(model, list(context), GREEDY)
    return [next(generator) for _ in range(count)]


def test_the_pieces_are_the_prompt_and_the_text(characters):
    model = make(characters)
    sampler = Sampler(seed=3)
    pieces = list(generate(model, characters, "to ", length=20, sampler=sampler))
    ids = generate_ids(model, [int(i) for i in characters.encode("to ")], sampler)
    expected = [next(ids) for _ in range(20)]
    assert len(pieces) == 21
    assert "".join(pieces) == "to " + characters.decode(expected)


def test_pieces_come_one_at_a_time(characters):
    pieces = generate(make(characters), characters, "to", length=10**9, sampler=GREEDY)
    assert next(pieces) == "to"
    assert len(next(pieces)) == 1


def test_the_same_seed_gives_the_same_text_and_another_another(characters):
    def text(seed):
        return "".join(generate(make(characters), characters, "", 60, Sampler(seed=seed)))

    assert text(1) == text(1) != text(2)


class Plain:
    """A model that offers no session."""

    def __init__(self, model):
        self.training, self.eval, self.train, self.forward = True, model.eval, model.train, model

    def __call__(self, ids, state):
        return self.forward(ids, state)


@pytest.mark.parametrize(
    "sampler",
    [
        GREEDY,
        Sampler(seed=1),
        Sampler(0.8, top_k=5, top_p=0.9, seed=2),
        Sampler(1.2, seed=3, repetition_penalty=1.1, no_repeat_ngram=3),
    ],
    ids=str,
)
def test_drawn_in_chunks_or_one_by_one_the_ids_are_the_same(characters, sampler):
    model = make(characters)
    context = [int(id) for id in characters.encode("to be")]
    chunks = list(generate_ids(model, context, sampler, 200))
    assert len(chunks) == 200
    assert chunks == list(generate_ids(Plain(model), context, sampler, 200))
    endless = generate_ids(model, context, sampler)
    assert [next(endless) for _ in range(150)] == chunks[:150]
    assert list(generate_ids(model, context, sampler, 0)) == []


def test_no_more_is_computed_than_is_asked_for(characters, monkeypatch):
    lengths = []
    original = LanguageModelSession.generate

    def counting(self, ids, uniforms, *options):
        lengths.append(len(uniforms))
        return original(self, ids, uniforms, *options)

    monkeypatch.setattr(LanguageModelSession, "generate", counting)
    list(generate(make(characters), characters, "to", length=150, sampler=GREEDY))
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 23]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored_and_dropout_is_off(characters, training):
    model = make(characters, dropout=0.5).train(training)
    first = "".join(generate(model, characters, "to", 20, GREEDY))
    assert model.training is training
    assert model.drop.training is training
    assert first == "".join(generate(model, characters, "to", 20, GREEDY))


def test_the_mode_is_restored_after_an_error(characters):
    model = make(characters)
    with pytest.raises((IndexError, ValueError)):
        next(generate_ids(model, [99], GREEDY))
    assert model.training


def test_characters_begin_as_at_the_beginning_of_a_line(characters):
    t = int(characters.encode("t")[0])
    newline = int(characters.encode("\n")[0])
    assert context_and_text(characters, "", t) == ([[newline], [t]], "tt")
    without = CharacterTokenizer.fit("abc")
    assert context_and_text(without, "", 2) == ([[0], [2]], "cc")


def test_words_go_on_within_the_line():
    words = WordTokenizer.fit(["the cat saw\n", "the dog\n"])
    eos, the, cat = (int(i) for i in (words.encode("\n")[0], *words.encode("the cat")[:2]))
    read, text = context_and_text(words, "the", cat)
    assert read == [[eos, the], [cat]]
    assert text == "the cat cat"
    read, text = context_and_text(words, "the\n", cat)
    assert read == [[eos, the, eos], [cat]]
    assert text == "the\ncat cat"
    read, text = context_and_text(words, "", cat)
    assert read == [[eos], [cat]]
    assert text == "cat cat"


def test_sentence_starts_stand_before_the_prompt_and_are_not_shown():
    words = WordTokenizer.fit(["the cat\n", "the dog\n"], sentence_start=True)
    bos, the, eos = (int(i) for i in words.encode("the"))
    assert context_and_text(words, "the", the) == ([[bos, the], [the]], "the the the")
    assert context_and_text(words, "", the) == ([[bos], [the]], "the the")
    assert context_and_text(words, "", eos)[1] == "\n\n"
    assert context_and_text(words, "", bos)[1] == ""


def test_unknown_words_are_shown_as_the_model_reads_them():
    words = WordTokenizer.fit(["the the cat cat bird\n"], minimum_count=2)
    assert context_and_text(words, "the ostrich", 0)[1].startswith("the <unk>")


class Unpacked(LanguageModel):
    """A model that sessions run as it is."""

    def forward(self, ids, state=None, lengths=None):
        return super().forward(ids, state, lengths)


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(seed=1), Sampler(2.0, 5, 0.9, seed=2)])
@pytest.mark.parametrize("bias", [True, False])
def test_ids_that_are_excluded_are_never_sampled(sampler, bias):
    """All ways to draw agree with masking the scores by hand."""
    random.seed(2)
    model, unpacked = (
        kind(9, hidden_size=6, initialization=1.0) for kind in (LanguageModel, Unpacked)
    )
    if not bias:
        model.output.bias = None
    unpacked.load_state_dict(model.state_dict()) if bias else None
    plain = list(generate_ids(model, [3], sampler, 100))
    without = dataclasses.replace(sampler, excluded=(plain[0], 7))
    found = list(generate_ids(model, [3], without, 100))
    assert not {plain[0], 7} & set(found)
    assert found == list(generate_ids(Plain(model), [3], without, 100))
    if bias:
        assert found == list(generate_ids(unpacked, [3], without, 100))
    generator, session, ids, expected = sampler.generator(), model.session(), [3], []
    for _ in range(100):
        scores = session.feed(ids)[-1:]
        scores[:, [plain[0], 7]] = -np.inf
        ids = sampler.sample(scores, generator)
        expected += ids.tolist()
    assert found == expected
    everything = dataclasses.replace(sampler, excluded=tuple(range(9)))
    for one in (model, Plain(model)):
        with pytest.raises(ValueError, match=r"only -inf.* were all tokens excluded"):
            list(generate_ids(one, [3], everything, 3))
    with pytest.raises(IndexError):
        next(generate_ids(model, [3], dataclasses.replace(sampler, excluded=(9,))))
    with pytest.raises(ValueError, match=r"excluded is \(-1,\); expected ids >= 0"):
        Sampler(excluded=(-1,))


@pytest.mark.parametrize(
    "tokenizer",
    [
        WordTokenizer.fit(["a a b b c\n"] * 2, vocabulary_size=3),
        CharacterTokenizer.fit(["aabbc"], minimum_count=2),
    ],
)
def test_the_unknown_token_is_sampled_only_if_it_may_be(tokenizer):
    sign = {"word": "<unk>", "char": "\ufffd"}[tokenizer.level]
    model, sampler = make(tokenizer), Sampler(seed=1)
    assert sign not in "".join(generate(model, tokenizer, "", 200, sampler))
    assert sign in "".join(generate(model, tokenizer, "", 200, sampler, unknown=True))


def test_byte_pairs_come_as_whole_characters():
    pytest.importorskip("tokenizers")
    byte_pairs = BPETokenizer.fit(["naïve café ☃ \N{GRINNING FACE}\n"] * 3, vocabulary_size=258)
    model = make(byte_pairs)
    prompt = "☃\N{GRINNING FACE}"
    pieces = list(generate(model, byte_pairs, prompt, 40, Sampler(seed=1)))
    ids = generate_ids(model, [int(i) for i in byte_pairs.encode(prompt)], Sampler(seed=1))
    expected = [*byte_pairs.encode(prompt), *(next(ids) for _ in range(40))]
    assert "".join(pieces) == byte_pairs.decode(expected)
    assert pieces[0] == prompt
    assert "".join(pieces[1:]) == byte_pairs.decode(expected)[2:]


def test_a_character_that_a_prompt_of_ids_leaves_incomplete_belongs_to_the_continuation():
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.fit(["a\n"], vocabulary_size=256)  # bytes
    ids = [int(id) for id in tokenizer.encode("é☃")]
    text = TextStream(tokenizer, ids[:3], stop=["☃b"])
    assert text.prompt == "é"
    assert [text.push(id) for id in ids[3:]] == ["", ""]  # "☃" may begin a stop text
    assert text.push(int(tokenizer.encode("c")[0])) == "☃c"
    assert [text.push(id) for id in ids[2:4]] == ["", ""]
    assert text.push(None) == "\ufffd"
    assert not text.stopped


def test_messages(characters):
    model = make(characters)
    with pytest.raises(DataError, match=r"'x' \(U\+0078\) at column 4 of the text"):
        generate(model, characters, "to x")
    with pytest.raises(ValueError, match="length is -1; expected a number of tokens >= 0"):
        generate(model, characters, "to", length=-1)
    with pytest.raises(ValueError, match="at least one token"):
        next(generate_ids(model, [], GREEDY))


def test_length_zero_is_the_prompt(characters):
    assert "".join(generate(make(characters), characters, "to be", 0)) == "to be"


# Stop texts


def cut(text, stop):
    """The definition: grow the text by a character until a stop text is complete."""
    for end in range(len(text) + 1):
        complete = [one for one in stop if text[:end].endswith(one)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


STOPS = [["e"], ["be"], ["t ", "nt"], ["o\n", "\n", "e e"], ["zz"], ["eb", "tebn", "b"]]


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_text_ends_before_a_stop_text(characters, stop):
    model = make(characters)
    ended = 0
    for seed in range(20):
        sampler = Sampler(seed=seed)
        entire = "".join(generate(model, characters, "to be", 60, sampler))
        pieces = list(generate(model, characters, "to be", 60, sampler, stop=stop))
        assert "".join(pieces) == "to be" + cut(entire[5:], stop)
        ended += len("".join(pieces)) < len(entire)
    assert (ended > 3) is (stop != ["zz"])


def test_text_that_cannot_begin_a_stop_text_is_not_held_back(characters):
    model = Recorder(characters.vocabulary_size, int(characters.encode("b")[0]))
    pieces = generate(model, characters, "to", 10**6, GREEDY, stop=["be", "xb"])
    assert [next(pieces) for _ in range(3)] == ["to", "b", "b"]  # the second b follows, not an e


def test_a_stop_text_goes_across_words_and_what_the_prompt_has_does_not_count():
    words = WordTokenizer.fit(["the cat saw\n", "the dog\n"])
    model = make(words)
    for seed in range(20):
        entire = "".join(generate(model, words, "the cat", 40, Sampler(seed=seed)))
        for stop in (["t s"], ["cat"], ["\nthe", "g\n"], ["e cat"]):
            text = "".join(generate(model, words, "the cat", 40, Sampler(seed=seed), stop=stop))
            assert text == "the cat" + cut(entire[7:], stop)


def test_a_stop_text_goes_across_byte_pairs():
    pytest.importorskip("tokenizers")
    byte_pairs = BPETokenizer.fit(["naïve café ☃ \N{GRINNING FACE}\n"] * 3, vocabulary_size=258)
    with pytest.MonkeyPatch.context() as patch:
        snow = [int(id) for id in byte_pairs.encode("ca☃fé ☃")]
        module = sys.modules["anaphora.generation.generate"]
        patch.setattr(module, "generate_ids", lambda *_: iter(snow))
        pieces = generate(None, byte_pairs, "☃", 9, GREEDY, stop=["☃f"])
        assert "".join(pieces) == "☃ca"


# Many prompts


PROMPTS = ["to be", "", "n", "or not to be to be or", "not\n", "t"]
SAMPLERS = [
    Sampler(seed=7),
    GREEDY,
    Sampler(0.8, top_k=5, top_p=0.9, seed=2),
    Sampler(seed=4, repetition_penalty=1.3, no_repeat_ngram=4),
]


@pytest.mark.pairs
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"cell": "gru", "num_layers": 2, "layer_norm": True}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_text_of_many_is_what_it_is_alone(characters, sampler, options, dtype):
    random.seed(2)
    model = LanguageModel(characters.vocabulary_size, hidden_size=6, dtype=dtype, **options)
    for stop in ([], ["t ", "oo"]):
        alone = [
            "".join(
                generate(
                    model,
                    characters,
                    prompt,
                    90,
                    dataclasses.replace(
                        sampler, seed=None if sampler.seed is None else sampler.seed + k
                    ),
                    stop=stop,
                )
            )
            for k, prompt in enumerate(PROMPTS)
        ]
        for batch_size in (1, 4, 32):
            found = generate_batch(
                model, characters, iter(PROMPTS), 90, sampler, stop=stop, batch_size=batch_size
            )
            assert list(found) == alone
        assert (
            list(generate_batch(Plain(model), characters, PROMPTS, 90, sampler, stop=stop)) == alone
        )
    assert model.training


def test_long_prompts_of_many_are_read_completely(characters, monkeypatch):
    monkeypatch.setattr("anaphora.generation.reading._WINDOW", 3)
    model = make(characters)
    found = list(generate_batch(model, characters, PROMPTS, 30, Sampler(seed=1)))
    monkeypatch.undo()
    assert found == list(generate_batch(model, characters, PROMPTS, 30, Sampler(seed=1)))


def test_texts_that_have_stopped_are_not_computed_further(characters, monkeypatch):
    sizes = []
    generate_of_session = LanguageModelSession.generate

    def counting(self, ids, uniforms, *options):
        sizes.append(uniforms.shape)
        return generate_of_session(self, ids, uniforms, *options)

    monkeypatch.setattr(LanguageModelSession, "generate", counting)
    model = make(characters)
    texts = list(generate_batch(model, characters, [""] * 9, 10**4, Sampler(seed=1), stop=["t"]))
    assert not any("t" in text for text in texts)
    longest = max(map(len, texts))
    assert sum(steps for steps, _ in sizes) <= 2 * longest + 2
    assert [size for _, size in sizes] == sorted((size for _, size in sizes), reverse=True)
    assert sizes[-1][1] < 9


def test_without_a_seed_texts_differ(characters):
    texts = list(generate_batch(make(characters), characters, ["to"] * 4, 60))
    assert len(set(texts)) == 4


def test_words_side_by_side_with_their_unknown_word():
    words = WordTokenizer.fit(["a a b b c\n"] * 2, vocabulary_size=3)
    model = make(words)
    for unknown in (False, True):
        found = list(generate_batch(model, words, ["a", "a a a"], 50, Sampler(seed=1), unknown))
        assert any("<unk>" in text for text in found) is unknown
        alone = generate(model, words, "a a a", 50, Sampler(seed=2), unknown)
        assert found[1] == "".join(alone)


# Next tokens


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_next_tokens_have_the_probabilities_of_the_model(characters, dtype):
    random.seed(2)
    model = LanguageModel(
        characters.vocabulary_size, hidden_size=6, dtype=dtype, initialization=2.0
    )
    logits, _ = model.eval()(characters.encode("to be")[:, None])
    p = np.exp(logits.data[-1, 0].astype(np.float64))
    p /= p.sum()
    found = next_tokens(model.train(), characters, "to be", 4)
    best = np.argsort(-p)[:4]
    assert [one.id for one in found] == best.tolist()
    assert [one.token for one in found] == [characters.characters[id] for id in best]
    np.testing.assert_allclose([one.probability for one in found], p[best], rtol=1e-6)
    assert model.training
    assert len(next_tokens(model, characters, "", 99)) == characters.vocabulary_size


def test_next_words_are_shown_as_the_vocabulary_has_them():
    words = WordTokenizer.fit(["the cat saw\n", "the dog\n"])
    tokens = [one.token for one in next_tokens(make(words), words, "the", 9)]
    assert sorted(tokens) == sorted(words.words)


def test_messages_of_many(characters):
    model = make(characters)
    for stop, error, message in [
        ([""], ValueError, "generate_batch: a stop text is empty; omit it"),
        ("be", TypeError, "generate_batch: stop is the text 'be'; expected a list of texts"),
    ]:
        with pytest.raises(error, match=message):
            generate_batch(model, characters, ["to"], stop=stop)
    with pytest.raises(ValueError, match="generate_batch: length is -1"):
        generate_batch(model, characters, ["to"], length=-1)
    with pytest.raises(ValueError, match="generate_batch: batch_size is 0; expected at least 1"):
        generate_batch(model, characters, ["to"], batch_size=0)
    with pytest.raises(ValueError, match="next_tokens: count is 0; expected at least 1"):
        next_tokens(model, characters, "to", 0)
    once = Sampler(no_repeat_ngram=1, seed=1)
    with pytest.raises(ValueError, match="no_repeat_ngram 1 leaves no token"):
        list(generate_batch(model, characters, ["to"], 50, once))


# The precision of products -----------------------------------------------------------------------


@pytest.mark.parametrize("offers_sessions", [True, False])
def test_a_text_is_generated_in_the_precision_of_the_call(characters, offers_sessions, monkeypatch):
    """Though it is generated when it is read, which may be elsewhere."""
    model, used = make(characters), set()
    session, forward = LanguageModel.session, model.recurrent.forward

    def recorded(function):
        def call(*arguments, **options):
            used.add(current_matmul_precision())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(LanguageModel, "session", recorded(session))
    monkeypatch.setattr(model.recurrent, "forward", recorded(forward))
    given = model if offers_sessions else Plain(model)
    for inside, outside in (("bfloat16", "float32"), ("float32", "bfloat16")):
        with matmul_precision(inside):
            texts = [
                generate(given, characters, "to", 5, GREEDY),
                generate_batch(given, characters, ["to", "be", "or"], 5, GREEDY, batch_size=2),
                generate_ids(given, [1], GREEDY, 5),
            ]
        with matmul_precision(outside):
            for text in texts:
                assert next(text) is not None
                assert list(text)
        assert used == {inside}
        used.clear()
