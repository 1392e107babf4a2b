"""BLEU and chrF: by sacrebleu, and BLEU against its definition."""

import math
import sys
from collections import Counter

import pytest

from anaphora.metrics import bleu, chrf


def n_grams(text, n):
    words = text.split()
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def defined_bleu(predicted, references):
    logs = 0.0
    for n in range(1, 5):
        pairs = [(n_grams(p, n), n_grams(r, n)) for p, r in zip(predicted, references, strict=True)]
        logs += math.log(sum((p & r).total() for p, r in pairs) / sum(p.total() for p, _ in pairs))
    ours, theirs = (sum(len(t.split()) for t in texts) for texts in (predicted, references))
    return 100 * min(1, math.exp(1 - theirs / ours)) * math.exp(logs / 4)


def test_bleu_by_its_definition():
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (extra translation)")
    predicted = ["a man rides a red bike down the road", "two dogs run in the snow"]
    references = ["a man rides a bike down the long road", "two big dogs run in the deep snow"]
    found = bleu(predicted, references, tokenize="none")
    assert found == pytest.approx(defined_bleu(predicted, references))
    assert 20 < found < 60
    assert bleu(predicted, [references]) == bleu(predicted, references)
    upper = [text.upper() for text in predicted]
    assert bleu(upper, references) == 0
    assert bleu(upper, references, lowercase=True) == pytest.approx(found)
    assert bleu(predicted, [references, predicted]) == pytest.approx(100)


def test_chrf():
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (extra translation)")
    assert chrf(["a house"], ["a house"]) == pytest.approx(100)
    assert chrf(["xyz"], ["abc"]) == 0
    assert 50 < chrf(["the houses"], ["the house"]) < 100
    assert chrf(["the houses"], ["the house"], word_order=2) < chrf(["the houses"], ["the house"])


def test_what_does_not_fit_is_refused():
    for metric in (bleu, chrf):
        with pytest.raises(ValueError, match="2 translations, but 1 references in set 0"):
            metric(["a", "b"], ["a"])
        with pytest.raises(ValueError, match="2 translations, but 1 references in set 1"):
            metric(["a", "b"], [["a", "b"], ["a"]])
        with pytest.raises(ValueError, match="there is no translation"):
            metric([], [])
        with pytest.raises(ValueError, match="predicted is one text"):
            metric("a text", ["a text"])


def test_without_sacrebleu_a_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r'bleu needs an extra: .*"anaphora\[translation\]"'):
        bleu(["a"], ["a"])
