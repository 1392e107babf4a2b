"""How words are said: the network of g2p-en, out of its package, for many words at a time.

    pip install --no-deps g2p-en
    python examples/pronunciation.py anaphora recurrence

The package g2p-en (Park & Kim 2019) holds the weights of two GRUs as NumPy arrays: one reads the
letters of a word, the other writes its phonemes in the alphabet ARPAbet, the most probable one at
each step. Of the package nothing else is used, so what it depends on is not needed.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np

from anaphora import nn, no_grad

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
PHONEMES = """<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0
AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG
OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH""".split()  # noqa: SIM905
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")
LONGEST = 20  # phonemes


def weights():
    """The arrays in the package g2p-en, by name."""
    found = importlib.util.find_spec("g2p_en")
    if found is None:
        raise SystemExit("the network is in a package: pip install --no-deps g2p-en")
    path = Path(found.submodule_search_locations[0], "checkpoint20.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


class Pronouncer(nn.Module):
    """A GRU that reads letters, and a GRU that writes phonemes from its last state."""

    def __init__(self, arrays):
        (letters, E), H = arrays["enc_emb"].shape, arrays["enc_w_hh"].shape[1]
        self.letters = nn.Embedding(letters, E)
        self.encoder = nn.GRU(E, H)
        self.phonemes = nn.Embedding(len(PHONEMES), E)
        self.decoder = nn.GRU(E, H)
        self.output = nn.Linear(H, len(PHONEMES))
        layers = {"enc": self.encoder, "dec": self.decoder}
        for name, layer in layers.items():
            parts = {f"{kind}_{half}" for kind in ("weight", "bias") for half in ("ih", "hh")}
            layer.load_state_dict(
                {f"{part}_l0": arrays[f"{name}_{part[0]}_{part[-2:]}"] for part in parts}
            )
        self.letters.load_state_dict({"weight": arrays["enc_emb"]})
        self.phonemes.load_state_dict({"weight": arrays["dec_emb"]})
        self.output.load_state_dict({"weight": arrays["fc_w"], "bias": arrays["fc_b"]})

    def pronounce(self, words):
        """The phonemes of each word, a list of texts."""
        lengths = [len(word) + 1 for word in words]
        ids = np.full((max(lengths), len(words)), LETTERS.index("</s>"))
        for column, word in enumerate(words):
            known = [letter if letter in LETTERS else "<unk>" for letter in word]
            ids[: len(word), column] = [LETTERS.index(letter) for letter in known]
        session = self.decoder.session(batch_size=len(words))
        written = np.full((LONGEST, len(words)), END)
        last = np.full(len(words), START)
        with no_grad():
            session.state = self.encoder(self.letters(ids), lengths=lengths)[1]
            for row in written:
                h = session.feed(self.phonemes(last).data)
                row[:] = last = self.output(h).data.argmax(axis=1)
        ends = (written == END).argmax(axis=0)
        ends[~(written == END).any(axis=0)] = LONGEST
        return [
            [PHONEMES[phoneme] for phoneme in column[:end]]
            for column, end in zip(written.T, ends, strict=True)
        ]


def main(arguments=None):
    """Print the pronunciation of each word, and return them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="WORD")
    options = parser.parse_args(arguments)

    words = [word.lower() for word in options.words]
    found = Pronouncer(weights()).pronounce(words)
    for word, phonemes in zip(words, found, strict=True):
        print(f"{word}: {' '.join(phonemes)}")
    return found


if __name__ == "__main__":
    main()
