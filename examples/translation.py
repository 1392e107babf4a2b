"""Translation with attention: Multi30k, English to German, scored with BLEU.

    python examples/translation.py DIR --out translation-model

DIR holds train.en, train.de, val.en, val.de, test_2016_flickr.en and test_2016_flickr.de (or other
names and languages given by the options), with one sentence per line, in lower case and tokenized.
A kill loses at most five minutes: `--resume` continues. BLEU needs sacrebleu:
pip install "anaphora[examples]".
"""

import argparse
import time
from pathlib import Path

from anaphora import optim, random
from anaphora.artifact import ModelDirectory
from anaphora.data import PairCodec, WordTokenizer, pair_batches
from anaphora.generation import translate
from anaphora.models import EncoderDecoder
from anaphora.training import Callback, MetricsFile, Trainer, TrainingOptions


class Print(Callback):
    """Prints the progress of training."""

    def on_record(self, trainer, record):
        """Print evaluations, and periodically the training loss."""
        if record["kind"] == "train" and record["step"] % 100:
            return
        rate = trainer.progress.tokens / max(trainer.progress.seconds, 1e-9)
        print(
            f"epoch {record['epoch']:.2f}, {record['seconds']:.0f} s, {record['kind']}: loss "
            f"{record['loss']:.3f}, perplexity {record['perplexity']:.2f}; {rate:,.0f} tokens a "
            "second",
            flush=True,
        )


def train(arguments):
    """Train a model, and keep the weights that are best on the validation text."""
    random.seed(arguments.seed)  # initial weights and dropout
    source_text, target_text = read(arguments, "train")
    tokenizers = {
        "source": WordTokenizer.fit([source_text], minimum_count=arguments.minimum_count),
        "target": WordTokenizer.fit([target_text], minimum_count=arguments.minimum_count),
    }
    source, target = tokenizers["source"], tokenizers["target"]

    def batches(name):
        texts = read(arguments, name)
        ids = (t.encode(text) for t, text in zip((source, target), texts, strict=True))
        return pair_batches(*ids, arguments.batch_size, target.start_id, source.start_id)

    training, validation = batches("train"), batches("val")
    model = EncoderDecoder(
        source.vocabulary_size,
        target.vocabulary_size,
        hidden_size=arguments.hidden_size,
        embedding_size=arguments.embedding_size,
        num_layers=arguments.num_layers,
        cell=arguments.cell,
        attention=None if arguments.attention == "none" else arguments.attention,
        dropout=arguments.dropout,
        tied=arguments.tied,
        end_id=target.start_id,
        initialization=0.1,  # Luong et al. 2015
        forget_bias=1.0 if arguments.cell == "lstm" else None,
    )
    model.codec = PairCodec(tokenizers)
    count = sum(parameter.size for parameter in model.parameters())
    print(
        f"{source.vocabulary_size:,} and {target.vocabulary_size:,} words, {count:,} parameters, "
        f"{len(training):,} batches an epoch of {training.tokens:,} target tokens"
    )
    options = TrainingOptions(
        epochs=arguments.epochs,
        minutes=arguments.minutes,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        schedule="cosine",
        checkpoint_seconds=300,
        seed=arguments.seed,
    )
    config = {"training": options.to_dict()}
    optimizer = optim.Adam(model.named_parameters(), options.learning_rate)
    if arguments.resume:
        directory = ModelDirectory.open(arguments.out)
    else:
        directory = ModelDirectory.create(arguments.out, overwrite=True)
    trainer = Trainer(
        model,
        optimizer,
        training,
        options,
        schedule=optim.Cosine(optimizer, total_steps=arguments.epochs * len(training)),
        validation=validation,
        directory=directory,
        save_model=lambda record: model.save(directory, **config, record=record),
        callbacks=[MetricsFile(directory), Print()],
    )
    if arguments.resume:
        trainer.load_checkpoint()
    print(trainer.run())


def read(arguments, name):
    """The source and the target of one part of the data."""
    paths = (arguments.data / f"{name}.{end}" for end in (arguments.source, arguments.target))
    return [path.read_text(encoding="utf-8") for path in paths]


def main(argv=None):
    """Train, translate the test text, and return BLEU and the losses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", default="en", help="ending of the files to translate from")
    parser.add_argument("--target", default="de", help="ending of the files to translate to")
    parser.add_argument("--test", default="test_2016_flickr", help="name of the test files")
    parser.add_argument("--out", type=Path, default=Path("translation-model"))
    parser.add_argument("--resume", action="store_true", help="continue the training in --out")
    parser.add_argument(
        "--epochs", type=int, default=20, help="0 only translates, with the model in --out"
    )
    parser.add_argument("--minutes", type=float, default=None, help="stop after this many minutes")
    parser.add_argument("--cell", default="lstm")
    parser.add_argument(
        "--attention", choices=("multiplicative", "additive", "none"), default="multiplicative"
    )
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--embedding-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--minimum-count", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        import sacrebleu
    except ImportError as error:
        raise SystemExit('BLEU needs sacrebleu: pip install "anaphora[examples]"') from error

    if arguments.epochs:
        train(arguments)
    model = EncoderDecoder.load(arguments.out)
    sentences, references = (
        text.removesuffix("\n").split("\n") for text in read(arguments, arguments.test)
    )
    begin = time.monotonic()
    found = translate(model, model.codec, sentences, arguments.beam_size, arguments.length_penalty)
    translations = [translation.text for translation in found]
    seconds = time.monotonic() - begin
    (arguments.out / f"{arguments.test}.translated").write_text(
        "".join(line + "\n" for line in translations), encoding="utf-8"
    )
    # The text is already tokenized, so BLEU must not do it again.
    bleu = sacrebleu.corpus_bleu(translations, [references], tokenize="none", force=True)
    for k in range(min(3, len(sentences))):
        print(f"\n  {sentences[k]}\n  {translations[k]}\n  ({references[k]})")
    print(f"\n{bleu}\n{len(sentences):,} sentences translated in {seconds:.0f} s")
    evaluations = ModelDirectory.open(arguments.out).read_metrics()
    losses = [record["loss"] for record in evaluations if record["kind"] == "evaluation"]
    return {"bleu": bleu.score, "validation_losses": losses, "translations": translations}


if __name__ == "__main__":
    main()
