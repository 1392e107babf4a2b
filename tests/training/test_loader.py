"""Batches for a loop of one's own: DataLoader, TensorDataset, collate."""

import numpy as np
import pytest

from anaphora import ops, random
from anaphora.tensor import Tensor
from anaphora.training import DataLoader, TensorDataset, collate

X = np.arange(14.0, dtype=np.float32).reshape(7, 2)
Y = np.arange(7) * 10


def rows(loader):
    return [(x.tolist(), y.tolist()) for x, y in loader]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_batches_in_order(batch_size, drop_last):
    loader = DataLoader(TensorDataset(X, Tensor(Y)), batch_size, drop_last=drop_last)
    starts = range(0, 7, batch_size)
    expected = [
        (X[k : k + batch_size].tolist(), Y[k : k + batch_size].tolist())
        for k in starts
        if not drop_last or k + batch_size <= 7
    ]
    assert rows(loader) == expected == rows(loader)
    assert len(loader) == len(expected)


def test_each_epoch_has_an_order_of_its_own_from_the_seed():
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True)
    random.seed(1)
    first, second = rows(loader), rows(loader)
    random.seed(1)
    assert rows(loader) == first != second
    for epoch in (first, second):
        pairs = [pair for x, y in epoch for pair in zip(x, y, strict=True)]
        assert sorted(pairs) == [(x.tolist(), y) for x, y in zip(X, Y, strict=True)]

    given = DataLoader(range(50), 50, shuffle=True, generator=np.random.default_rng(3))
    (found,) = given
    assert found.tolist() == np.random.default_rng(3).permutation(50).tolist()


def test_a_dataset_of_ones_own_with_a_collate_function():
    class Words:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return ["a", "ab", "abc"][index], index

    def pad(examples):
        ids = [np.array([ord(c) - 96 for c in word]) for word, _ in examples]
        return ops.pad_sequence(ids), [len(i) for i in ids], [label for _, label in examples]

    (first, lengths, labels), (second, _, _) = DataLoader(Words(), 2, collate_fn=pad)
    assert (first.T.tolist(), lengths, labels) == ([[1, 0], [1, 2]], [1, 2], [0, 1])
    assert second.tolist() == [[1], [2], [3]]


def test_collate():
    assert collate([3, 4]).tolist() == [3, 4]
    assert (collate([3, 4]).dtype, collate([1.5]).dtype) == (np.int64, np.float32)
    assert collate([True, False]).dtype == bool
    assert collate([np.float64(1.5)]).dtype == np.float64
    batch = collate([{"x": X[0], "name": ["a", 1]}, {"x": X[1], "name": ["b", 2]}])
    np.testing.assert_array_equal(batch["x"].data, X[:2])
    letters, numbers = batch["name"]
    assert (letters, numbers.tolist()) == (["a", "b"], [1, 2])


def test_gradients_flow_to_what_was_collated():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    loss = sum((batch * [2.0, 3.0][: len(batch)]).sum() for batch in DataLoader(x, 2))
    loss.backward()
    assert x.grad.tolist() == [2, 3, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DataLoader([1], batch_size=0), ValueError, "DataLoader: batch_size must be an in"),
        (
            lambda: DataLoader([1], num_workers=2),
            TypeError,
            "DataLoader: .* 'num_workers': omit",
        ),
        (lambda: TensorDataset(), ValueError, "TensorDataset: shapes of nothing; give"),
        (lambda: TensorDataset(X, Y[1:]), ValueError, r"TensorDataset: shapes \(7, 2\), \(6,\);"),
        (lambda: TensorDataset(1.0), ValueError, r"TensorDataset: shapes \(\);"),
        (lambda: TensorDataset(X)[7], IndexError, "TensorDataset: example 7 of 7"),
        (
            lambda: next(iter(DataLoader([X[:1], X[:2]], 2))),
            ValueError,
            r"collate: arrays of shapes \(1, 2\), \(2, 2\) in one batch; .*pad_sequence does it",
        ),
        (
            lambda: next(iter(DataLoader([[1], [1, 2]], 2))),
            ValueError,
            "collate: examples of different numbers of items; .*pad_sequence does it",
        ),
    ],
)
def test_bad_use(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
