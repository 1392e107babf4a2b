"""Modules of PyTorch in and out: values, gradients, states, structure, weights, options."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

from torch import nn as theirs  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

from anaphora import models, nn  # noqa: E402
from anaphora.artifact import ArtifactError  # noqa: E402
from anaphora.interop import torch as interop  # noqa: E402
from anaphora.tensor import Tensor  # noqa: E402

T, B, I, H, V = 7, 4, 3, 5, 11


pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]


def assert_same(found, expected, dtype=np.float32):
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for ours, other in zip(found, expected, strict=True):
        ours = ours.data if isinstance(ours, Tensor) else np.asarray(ours)
        other = other.detach().numpy()
        assert ours.shape == other.shape
        assert ours.dtype == other.dtype
        np.testing.assert_allclose(ours, other, rtol=tolerance, atol=tolerance)


def compare(module, *inputs, dtype=np.float32):
    """Values, gradients of all parameters, names, and the way back."""
    ours = interop.from_torch(module)
    held = ours.state_dict()
    kept = dict(module.named_parameters()) | {n: b for n, b in module.named_buffers() if n in held}
    state = {name: p.detach().numpy() for name, p in kept.items()}
    assert list(held) == [name for name in module.state_dict() if name in state]
    for name, array in state.items():
        np.testing.assert_array_equal(held[name], array)
    tensors = [
        tuple(map(torch.tensor, x)) if isinstance(x, tuple) else torch.tensor(x) for x in inputs
    ]
    found, expected = ours(*inputs), module(*tensors)
    assert_same(found, expected, dtype)
    if any(p.requires_grad for p in module.parameters()):
        module.zero_grad()
        sum((leaf**2).sum() for leaf in leaves(expected)).backward()
        total = None
        for leaf in leaves(found):
            total = (leaf**2).sum() if total is None else total + (leaf**2).sum()
        total.backward()
        gradients = {n: p.grad for n, p in ours.named_parameters()}
        for name, parameter in module.named_parameters():
            if parameter.grad is None:
                assert gradients[name] is None
                continue
            dense = np.asarray(gradients[name])
            np.testing.assert_allclose(dense, parameter.grad.numpy(), rtol=2e-4, atol=2e-5)
    return ours


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


RECURRENT = [
    (theirs.RNN, {}),
    (theirs.RNN, {"nonlinearity": "relu", "bias": False}),
    (theirs.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    (theirs.LSTM, {"proj_size": 2, "dropout": 0.3, "num_layers": 2}),
    (theirs.GRU, {"num_layers": 2, "bidirectional": True}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "options"), RECURRENT, ids=str)
def test_recurrent_layers(kind, options, dtype):
    module = kind(I, H, **options, dtype=torch.tensor(dtype(0)).dtype).eval()
    x = normal(B, T, I, dtype=dtype) if options.get("batch_first") else normal(T, B, I, dtype=dtype)
    ours = compare(module, x, dtype=dtype)
    state = module(torch.tensor(x))[1]
    states = state if isinstance(state, tuple) else (state,)
    initial = tuple(normal(*s.shape, dtype=dtype) for s in states)
    compare(module, x, initial if len(initial) > 1 else initial[0], dtype=dtype)
    back = interop.to_torch(ours)
    assert type(back) is kind
    assert repr(back) == repr(module)
    assert not back.training
    assert_same(ours(x), back(torch.tensor(x)), dtype)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (theirs.RNNCell, {}),
        (theirs.RNNCell, {"nonlinearity": "relu"}),
        (theirs.LSTMCell, {}),
        (theirs.GRUCell, {"bias": False}),
    ],
    ids=str,
)
def test_cells(kind, options):
    module = kind(I, H, **options)
    states = (normal(B, H), normal(H + 1, B).T[:, :H])
    state = states if kind is theirs.LSTMCell else states[0]
    ours = compare(module, normal(B, I))
    compare(module, normal(B, I), state)
    single = tuple(s[0] for s in states) if kind is theirs.LSTMCell else states[0][0]
    compare(module, normal(I))
    compare(module, normal(I), single)
    back = interop.to_torch(ours)
    assert repr(back) == repr(module)
    assert_same(ours(normal(B, I)), back(torch.tensor(normal(B, I))))


def batch_norm(**options):
    module = theirs.BatchNorm1d(I, **options)
    for _ in range(3):
        module(torch.tensor(2 * normal(B, I) + 1))
    return module.eval()


LAYERS = {
    "linear": (lambda: theirs.Linear(I, H), normal(T, I)),
    "linear, no bias": (lambda: theirs.Linear(I, H, bias=False), normal(B, T, I)),
    "layer norm": (lambda: theirs.LayerNorm(I, eps=0.1), normal(T, I)),
    "layer norm, no bias": (lambda: theirs.LayerNorm(I, bias=False), normal(T, I)),
    "batch norm": (lambda: batch_norm(eps=0.1, momentum=None), normal(B, I, T)),
    "batch norm of rows": (lambda: batch_norm(affine=False), normal(B, I)),
    "batch norm, no statistics": (
        lambda: batch_norm(track_running_stats=False, momentum=0.3), normal(B, I),
    ),
    "conv": (lambda: theirs.Conv1d(I, H, 3), normal(B, I, T)),
    "conv, one": (lambda: theirs.Conv1d(I, H, 3, padding="same", dilation=2), normal(I, T)),
    "conv, options": (
        lambda: theirs.Conv1d(4, 6, 2, stride=2, padding=3, groups=2, bias=False),
        normal(B, 4, T),
    ),
    "dropout": (lambda: theirs.Dropout(0.3).eval(), normal(T, I)),
    "relu6": (theirs.ReLU6, 5 * normal(T, I)),
    **{
        kind.__name__: (kind, 3 * normal(T, I))
        for kind in (
            theirs.Tanh, theirs.Sigmoid, theirs.ReLU, theirs.ELU, theirs.SELU, theirs.SiLU,
            theirs.Mish, theirs.Softsign, theirs.Tanhshrink, theirs.LogSigmoid, theirs.LeakyReLU,
            theirs.Hardsigmoid, theirs.Hardswish, theirs.Hardtanh, theirs.Identity, theirs.GELU,
        )
    },
    "softmax": (lambda: theirs.Softmax(dim=-1), normal(T, I)),
    "log softmax": (lambda: theirs.LogSoftmax(dim=-1), normal(T, I)),
    "gelu": (lambda: theirs.GELU(approximate="tanh"), 3 * normal(T, I)),
    "sequential": (
        lambda: theirs.Sequential(theirs.Linear(I, H), theirs.Tanh(), theirs.GRU(H, 2)),
        normal(T, B, I),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, x = LAYERS[name]
    module = make()
    ours = compare(module, x)
    back = interop.to_torch(ours)
    assert_same(ours(x), back(torch.tensor(x)))
    if name not in ("relu6", "conv, one"):  # Hardtanh(0, 6); numbers for "same"
        assert repr(back) == repr(module)


def test_embeddings():
    ids = np.random.default_rng(1).integers(0, V, (T, B))
    module = theirs.Embedding(V, I, padding_idx=0)
    ours = interop.from_torch(module)
    assert_same(ours(ids), module(torch.tensor(ids)))
    assert_same(ours(ids), interop.to_torch(ours)(torch.tensor(ids)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: theirs.Conv2d(1, 1, 3), r"Conv2d has no equivalent; expected RNN, LSTM, GRU"),
        (
            lambda: theirs.Sequential(theirs.ReLU(), theirs.InstanceNorm1d(3)),
            r"1 \(InstanceNorm1d\) h",
        ),
        (lambda: theirs.Embedding(3, 2, max_norm=1.0), "Embedding: max_norm"),
        (lambda: theirs.LayerNorm((3, 4)), r"LayerNorm: normalized_shape=\(3, 4\) cannot be conv"),
        (lambda: theirs.LayerNorm(3, elementwise_affine=False), "elementwise_affine=False is not"),
        (lambda: theirs.Conv1d(3, 2, 3, padding_mode="circular"), "padding_mode='circular' is not"),
        (lambda: theirs.Softmax(dim=0), "dim=0 is not supported; it must be the last"),
    ],
)
def test_what_has_no_equivalent_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(make())


# Modules of one's own -----------------------------------------------------------------------------


class Block(theirs.Module):
    def __init__(self):
        super().__init__()
        self.conv = theirs.Conv1d(I, H, 3, padding=1)
        self.scale = theirs.Parameter(torch.randn(H))
        self.register_buffer("shift", torch.randn(H))

    def forward(self, x):
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return torch.relu(y) * self.scale + self.shift


class Tagger(theirs.Module):
    """What recurrent models in PyTorch do, in one."""

    def __init__(self):
        super().__init__()
        self.embedding = theirs.Embedding(V, I)
        self.blocks = theirs.ModuleList([Block()])
        self.lstm = theirs.LSTM(H, H, batch_first=True, bidirectional=True, num_layers=2)
        self.head = theirs.Sequential(theirs.Dropout(0.3), theirs.Linear(2 * H, V))
        self.mix = theirs.Parameter(torch.randn(2 * H, 2 * H))

    def forward(self, ids, state=None, scale: float = 2.0):
        x = self.blocks[0](self.embedding(ids))
        if state is None:
            state = (
                torch.zeros(4, ids.size(0), H, device=ids.device),
                torch.zeros(4, ids.shape[0], H),
            )
        y, (h, c) = self.lstm(x, state)
        last = torch.cat([h[-2], h[-1]], dim=1)
        pooled, _ = y.max(dim=1)
        scores = self.head(y.contiguous().view(-1, 2 * H)).view(ids.shape[0], -1, V)
        scores = torch.nn.functional.log_softmax(scores, dim=2) / scale
        mixed = last + pooled.squeeze() + y.mean(1) + y.permute(1, 0, 2)[0]
        mixed = mixed + torch.nn.functional.linear(last[:1].expand(ids.size(0), -1), self.mix)
        return scores, mixed.unsqueeze(1), c


def test_modules_of_ones_own():
    module = Tagger().eval()
    ids = np.random.default_rng(1).integers(0, V, (B, T))
    ours = compare(module, ids)
    assert isinstance(ours.blocks, nn.Module)
    assert type(ours.lstm) is nn.LSTM
    state = (normal(4, B, H), normal(B, 4, H).transpose(1, 0, 2).copy())
    compare(module, ids, state)
    block = ours.blocks
    assert_same(
        getattr(block, "0")(normal(B, T, I)), module.blocks[0](torch.tensor(normal(B, T, I)))
    )
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again(ids)[0].data, copy.deepcopy(ours)(ids)[0].data)
    assert not ours.training
    with pytest.raises(ValueError, match=r"was traced with scale=2.0, and cannot be called with 3"):
        ours(ids, scale=3.0)
    with pytest.raises(TypeError, match="Tagger: takes ids, state, scale, and ids is missing"):
        ours(state=state)
    with pytest.raises(TypeError, match="takes ids, state, scale, not 1 and h by name"):
        ours(ids, h=state)


class Ragged(theirs.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.gru = theirs.GRU(I, H, batch_first=batch_first, bidirectional=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted=False)
        packed, h = self.gru(packed)
        y, _ = pad_packed_sequence(packed, batch_first=self.batch_first)
        again, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, True, total_length=T + 0)
        return y, h, again


@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_sequences(batch_first):
    x = normal(B, T, I) if batch_first else normal(T, B, I)
    module, lengths = Ragged(batch_first), np.array([2, 6, 1, 3])
    compare(module, x, lengths)


class Functional(theirs.Module):
    def __init__(self):
        super().__init__()
        self.linear = theirs.Linear(I, H)

    def forward(self, x):
        y = torch.nn.functional.dropout(self.linear(x), 0.5, self.training)
        return y * 2


def test_functional_dropout_follows_the_mode():
    module = Functional()
    ours = interop.from_torch(module)
    assert ours.training
    x = normal(200, I)
    assert 50 < (ours(x).data == 0).sum() < 950
    assert_same(ours.eval()(x), module.eval()(torch.tensor(x)))
    assert_same(interop.from_torch(module)(x), module(torch.tensor(x)))


class Loop(theirs.Module):
    def __init__(self):
        super().__init__()
        self.cell = theirs.GRUCell(I, H)

    def forward(self, x):
        h = None
        for step in x:
            h = self.cell(step, h)
        return h


class Unknown(Loop):
    def forward(self, x):
        return torch.fft.fft(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Loop, "Loop: its forward could not be traced: .*"),
        (Unknown, "it calls .*fft, which has no"),
    ],
)
def test_a_forward_that_cannot_be_traced_is_to_be_written(kind, message):
    module = kind()
    ours = interop.from_torch(module)
    with pytest.raises(NotImplementedError, match=f"{message}.*; write the class anew with anaph"):
        ours(normal(T, B, I))

    class Mine(nn.Module):
        def __init__(self):
            self.cell = nn.GRUCell(I, H)

        def forward(self, x):
            h = None
            for step in x:
                h = self.cell(step, h)
            return h

    mine = Mine()
    mine.load_state_dict(ours.state_dict())
    assert_same(mine(normal(T, B, I)), Loop.forward(module, torch.tensor(normal(T, B, I))))


def test_names_that_a_module_needs():
    class Bad(theirs.Module):
        def __init__(self):
            super().__init__()
            self.products = theirs.Linear(2, 2)

        def forward(self, x):
            return self.products(x)

    with pytest.raises(ValueError, match="Bad: its attribute 'products' has a name that Module ne"):
        interop.from_torch(Bad())


def test_shared_and_frozen_weights_stay_so():
    class Tied(theirs.Module):
        def __init__(self):
            super().__init__()
            self.table = theirs.Embedding(V, H)
            self.output = theirs.Linear(H, V)
            self.output.weight = self.table.weight
            self.output.bias.requires_grad = False

        def forward(self, ids):
            return self.output(self.table(ids))

    module = Tied()
    ours = interop.from_torch(module)
    assert ours.output.weight is ours.table.weight
    assert not ours.output.bias.requires_grad
    assert_same(ours(np.array([3, 1])), module(torch.tensor([3, 1])))
    back = interop.to_torch(ours)
    assert back.output.weight is back.table.weight
    assert not back.output.bias.requires_grad


def test_wrappers_of_parallel_training_are_removed():
    module = theirs.DataParallel(theirs.Linear(I, H))
    ours = interop.from_torch(module)
    assert list(ours.state_dict()) == ["weight", "bias"]
    assert_same(ours(normal(T, I)), module(torch.tensor(normal(T, I))))


def test_narrow_weights_are_widened_exactly():
    for dtype in (torch.bfloat16, torch.float16):
        module = theirs.Linear(I, H, dtype=dtype)
        ours = interop.from_torch(module)
        np.testing.assert_array_equal(ours.weight.data, module.weight.detach().float().numpy())


# To PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"padding": "causal"}, {"padding": (2, 1), "stride": 2}],
    ids=str,
)
def test_convolutions_of_ours_keep_their_layout(options):
    layer = nn.Conv1d(I, H, 3, **options)
    back = interop.to_torch(layer)
    assert list(back.state_dict()) == list(layer.state_dict())
    for shape in ((T, B, I), (T, I)):
        assert_same(layer(normal(*shape)), back(torch.tensor(normal(*shape))))


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalizations_of_ours_keep_their_layout(training):
    layer = nn.BatchNorm1d(I, epsilon=0.1, momentum=0.3)
    layer.weight.assign(normal(I))
    layer(2 * normal(T, B, I) + 1)
    back = interop.to_torch(layer.train(training))
    assert list(back.state_dict()) == list(layer.state_dict())
    for shape in ((T, B, I), (T, I)):
        assert_same(layer(normal(*shape)), back(torch.tensor(normal(*shape))))
    for name, array in layer.state_dict().items():
        np.testing.assert_allclose(back.state_dict()[name].numpy(), array, rtol=1e-5)


def test_functions_of_ours_are_theirs():
    x = 3 * normal(T, I)
    for ours, kind in (
        (nn.ReLU(), theirs.ReLU), (nn.ELU(0.5), theirs.ELU), (nn.LeakyReLU(0.2), theirs.LeakyReLU),
        (nn.GELU("tanh"), theirs.GELU), (nn.GELU(), theirs.GELU), (nn.SiLU(), theirs.SiLU),
        (nn.Softmax(), theirs.Softmax), (nn.Identity(), theirs.Identity), (nn.Tanh(), theirs.Tanh),
        (nn.Softplus(), theirs.Softplus), (nn.Sigmoid(), theirs.Sigmoid),
        (nn.LogSoftmax(), theirs.LogSoftmax),
    ):  # fmt: skip
        back = interop.to_torch(ours)
        assert type(back) is kind
        assert_same(ours(Tensor(x)), back(torch.tensor(x)))


def test_sequences_of_ours_pass_outputs_on():
    ours = nn.Sequential(nn.LSTM(I, H, batch_first=True), nn.GRU(H, 2, batch_first=True))
    back = interop.to_torch(ours)
    x = normal(B, T, I)
    assert_same(ours(x), back(torch.tensor(x)))
    back.load_state_dict({name: torch.tensor(a) for name, a in ours.state_dict().items()})


def words(**options):
    return {"hidden_size": H, "vocabulary_size": V, **options}


MODELS = {
    "language model": lambda **o: models.LanguageModel(**words(num_layers=2, tied=True, **o)),
    "of GRUs": lambda **o: models.LanguageModel(**words(cell="gru", embedding_size=I, **o)),
    "of simple cells": lambda **o: models.LanguageModel(**words(cell="rnn_relu", **o)),
    "tagger": lambda **o: models.SequenceTagger(
        3, hidden_size=H, input_size=I, num_layers=2, bidirectional=True, **o
    ),
    "speller": lambda **o: models.SequenceTagger(
        **words(num_tags=3, num_characters=9, bidirectional=True, **o)
    ),
    "classifier": lambda **o: models.SequenceClassifier(
        3, hidden_size=H, input_size=I, bidirectional=True, cell="gru", **o
    ),
    "mean": lambda **o: models.SequenceClassifier(**words(num_classes=3, pooling="mean", **o)),
    "maximum": lambda **o: models.SequenceRegressor(
        2, hidden_size=H, input_size=I, pooling="max", bidirectional=True, **o
    ),
    "additive": lambda **o: models.EncoderDecoder(
        9, V, hidden_size=6, num_layers=2, attention="additive", **o
    ),
    "multiplicative": lambda **o: models.EncoderDecoder(
        9, V, hidden_size=6, embedding_size=I, attention="multiplicative", cell="gru",
        bidirectional=False, tied=True, **o,
    ),
    "no attention": lambda **o: models.EncoderDecoder(9, V, hidden_size=6, attention="none", **o),
    "caption": lambda **o: models.VectorToSequence(I, V, hidden_size=H, num_layers=2, **o),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MODELS)
def test_models_compute_the_same_in_pytorch(name, dtype):
    """Values, states, gradients of all parameters; with lengths, of empty rows too."""
    model = MODELS[name](dtype=np.dtype(dtype).name, dropout=0.3)
    generator = np.random.default_rng(4)
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] = generator.normal(size=array.shape) * 0.5
    back = interop.to_torch(model.eval())
    assert list(back.state_dict()) == list(model.state_dict())
    assert not back.training
    for inputs in inputs_of(model, dtype, generator):
        given = {k: tensors(v) for k, v in inputs.items()}
        expected, found = model(**inputs), back(**given)
        pairs = [*zip(leaves(expected), leaves(found), strict=True)]
        for ours, other in pairs:
            if ours is None:
                assert other is None
            else:
                assert_same(ours, other, dtype)
        weights = generator.normal(size=pairs[0][0].shape).astype(dtype)
        model.zero_grad()
        back.zero_grad()
        (pairs[0][0] * weights).sum().backward()
        (pairs[0][1] * torch.tensor(weights)).sum().backward()
        for key, parameter in model.named_parameters():
            other = dict(back.named_parameters())[key].grad
            other = torch.zeros(parameter.shape) if other is None else other
            grad = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad
            grad = np.asarray(getattr(grad, "data", grad))
            tolerance = 1e-4 if dtype == np.float32 else 1e-11
            np.testing.assert_allclose(grad, other.numpy(), tolerance, tolerance, err_msg=key)
    again = pickle.loads(pickle.dumps(back))
    assert_same(leaves(model(**inputs))[0], leaves(again(**given))[0], dtype)


def inputs_of(model, dtype, generator):
    """Arguments of a call, without lengths and with them, and with states where it takes them."""
    ids = generator.integers(0, V, (T, B))
    lengths = np.array([T, 0, 3, 1])
    if isinstance(model, models.VectorToSequence):
        x = generator.normal(size=(B, I)).astype(dtype)
        return [{"source": x, "inputs": ids}, {"source": x, "inputs": ids, "lengths": lengths}]
    if isinstance(model, models.EncoderDecoder):
        given = {"source": generator.integers(0, 9, (6, B)), "inputs": ids}
        ends = {"source_lengths": np.array([6, 2, 0, 4]), "lengths": lengths}
        return [given, given | ends, given | {"lengths": lengths}]
    name = "ids" if isinstance(model, models.LanguageModel) else "inputs"
    features = generator.normal(size=(T, B, I)).astype(dtype)
    given = {name: ids if model.embedding is not None else features}
    if model.characters is not None:
        given["characters"] = generator.integers(0, 9, (4, T, B))
        given["character_lengths"] = generator.integers(0, 5, (T, B))
    calls = [given, given | {"lengths": lengths}]
    if isinstance(model, (models.LanguageModel, models.SequenceTagger)):
        shapes = model.recurrent.state_shapes(B).values()
        states = [generator.normal(size=shape).astype(dtype) for shape in shapes]
        state = tuple(states) if len(states) > 1 else states[0]
        calls += [given | {"state": state}, given | {"state": state, "lengths": lengths}]
    return calls


def tensors(value):
    return tuple(map(torch.tensor, value)) if isinstance(value, tuple) else torch.tensor(value)


def test_weights_of_models_stay_shared():
    model = models.LanguageModel(V, hidden_size=H, tied=True)
    back = interop.to_torch(model)
    assert sorted(back.state_dict()) == sorted(model.state_dict())
    assert back.output.weight is back.embedding.weight


def test_a_module_of_ones_own_gives_its_parts_and_weights():
    class Mine(models.LanguageModel):
        kind = "mine"

        def forward(self, ids):
            return self.output(self.embedding(ids))

    model = Mine(V, hidden_size=H)
    back = interop.to_torch(model)
    with pytest.raises(NotImplementedError, match=r"Mine: .* forward is to be written"):
        back(torch.tensor([[1]]))
    ids = np.array([[1, 2], [3, 4], [0, 10]])
    assert_same(model.eval()(ids), back.output(back.embedding(torch.tensor(ids))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Recurrent("mgu", 2, 3), "PyTorch has no layer of 'mgu'"),
        (lambda: nn.LSTM(2, 3, layer_norm=True), "LSTM: layer_norm has no equivalent"),
        (lambda: nn.LSTM(2, 3, zoneout=0.1), "zoneout has no equivalent"),
        (lambda: nn.Sequential(nn.Dropout(0.1, locked=True)), r"0 \(Dropout\): a locked dropout"),
        (lambda: nn.Embedding(3, 2, dropout=0.1), "dropout of embeddings"),
        (lambda: nn.RNN(3, 4, proj_size=2), "PyTorch projects only LSTMs"),
        (
            lambda: models.LanguageModel(**words(cell="mgu")),
            r"recurrent .*: PyTorch has no l",
        ),
        (lambda: models.SequenceTagger(3, **words(crf=True)), r"crf_layer \(CRF\): decodes paths"),
        (lambda: models.Forecaster(hidden_size=4), "Forecaster: reads windows of series"),
    ],
)
def test_what_pytorch_lacks_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        interop.to_torch(make())


# States and checkpoints ---------------------------------------------------------------------------


def test_states_of_bfloat16_and_of_data_parallel():
    module = theirs.LSTM(I, H).bfloat16()
    layer = nn.LSTM(I, H)
    layer.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(
        layer.weight_hh_l0.data, module.weight_hh_l0.detach().float().numpy()
    )
    layer.load_state_dict(dict(module.named_parameters()))  # which need a gradient
    parallel = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    with pytest.raises(
        KeyError, match=r"all names of the state begin with 'module\.': load \{name"
    ) as e:
        layer.load_state_dict(parallel)
    layer.load_state_dict(
        eval(
            str(e.value).partition("load ")[2].partition("}")[0].replace("\\", "") + "}",
            {"state": parallel},
        )
    )
    with pytest.raises(KeyError, match="strict=False loads the names that both have"):
        layer.load_state_dict({**parallel, "other": parallel["module.bias_hh_l0"]})


@pytest.mark.parametrize("name", [None, "state_dict", "model_state_dict"])
def test_checkpoints(name, tmp_path):
    module = theirs.GRU(I, H, dtype=torch.bfloat16)
    state = module.state_dict()
    held = state if name is None else {name: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(held, tmp_path / "model.pt")
    found = interop.load_checkpoint(tmp_path / "model.pt")
    assert list(found) == list(state)
    for key, tensor in state.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], tensor.float().numpy())
    nn.GRU(I, H).load_state_dict(found)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_checkpoints_run_no_code(tmp_path):
    path = tmp_path / "model.pt"
    target = tmp_path / "evil"
    for held in (theirs.Linear(2, 2), {"a": Evil(str(target))}):
        torch.save(held, path)
        with pytest.raises(
            ArtifactError, match=r"PyTorch cannot read it as weights alone .*; where"
        ):
            interop.load_checkpoint(path)
    assert not target.exists()
    torch.save({"epoch": 3}, path)
    with pytest.raises(ArtifactError, match="holds a dict without a dictionary of weights"):
        interop.load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="cannot read it as weights alone"):
        interop.load_checkpoint(path)
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        interop.load_checkpoint(tmp_path / "none.pt")
