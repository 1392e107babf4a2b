"""Names from PyTorch, NumPy and Keras, with what to write here instead.

One table serves missing attributes of objects and packages, imports and arguments, and is
printed in ``docs/guide/coming-from.md``.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from inspect import CO_VARKEYWORDS
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_CPU = "omit it: everything runs on the CPU"
_WRITING = "`with x.writing() as array: array[...] = values`"
_PACKING = "`layer(x, lengths=lengths)`: any order, no packing"
_BFLOAT16 = "`anaphora.matmul_precision('bfloat16')`: products are rounded, arrays stay float32"
_NUMBERS = "`x.data`, the numbers as an array: they have no gradient"

# By owner; a key holds several names, separated by spaces.
NAMES: dict[str, dict[str, str]] = {
    "Tensor": {
        "view view_as reshape_as": "`x.reshape(...)`",
        "ravel": "`x.flatten()`",
        "unsqueeze": "`x.expand_dims(axis)`",
        "permute t":
            "`x.transpose(...)`, or `x.T`; omit it around `nn.Conv1d`, which reads [T, B, I]",
        "swapdims mT": "`x.swapaxes(axis1, axis2)`",
        "movedim moveaxis": "`ops.moveaxis(x, source, destination)`",
        "contiguous": "omit it: operations take any layout",
        "expand expand_as": "`x.broadcast_to(shape)`",
        "repeat_interleave": "`x.repeat(2, axis=0)`",
        "cat": "`ops.concatenate([x, y], axis=0)`",
        "chunk": "`ops.split(x, sections, axis=0)`",
        "unbind": "`ops.unstack(x)`, or a loop over x",
        "mm bmm mv dot": "`x @ y`",
        "add sub mul div": "`x + y`, `x - y`, `x * y`, `x / y`",
        "add_ sub_ mul_ div_ copy_ fill_ zero_ clamp_ masked_fill_ normal_ uniform_": _WRITING,
        "pow": "`x ** number`",
        "square": "`x * x`",
        "neg": "`-x`",
        "clamp": "`x.clip(min, max)`",
        "clamp_min": "`x.clip(min=0)`",
        "clamp_max": "`x.clip(max=1)`",
        "amin": "`x.min(axis)`",
        "amax": "`x.max(axis)`",
        "aminmax": "`x.min(axis)` and `x.max(axis)`",
        "gather take_along_dim": "`x.take_along_axis(indices, axis)`",
        "scatter scatter_add index_add": "`ops.where`, or the gradient of `x[index]`",
        "index_select select take": "`x[index]`, or `x[:, index]` along axis 1",
        "masked_select": "`x[mask]`",
        "sign remainder floor_divide": "`ops.sign(x)`, `x % y`, `x // y`",
        "eq ne lt le gt ge": "`x == y`, `x != y`, `x < y` and so on: arrays of booleans",
        "nonzero unique median cumprod": "NumPy's, of `x.data`",
        "where": "`ops.where(condition, x, other)`",
        "lerp": "`x + weight * (y - x)`",
        "diff": "`x[1:] - x[:-1]`",
        "log1p expm1": "`ops.log(1 + x)`, `ops.exp(x) - 1`",
        "logaddexp": "`ops.logsumexp(ops.stack([x, y]), axis=0)`",
        "outer inner tensordot": "`ops.einsum('i,j->ij', x, y)` and so on",
        "vstack hstack": "`ops.concatenate([x, y], axis=0)`, or axis=1",
        "float double half long int bool type": "`x.astype(dtype)`",
        "bfloat16": _BFLOAT16,
        "to cuda cpu device is_cuda pin_memory": _CPU,
        "clone copy": "omit it, operations never change x; `Tensor(x)` copies the numbers",
        "detach_": "`x = x.detach()`",
        "requires_grad_": "`x.requires_grad = True`",
        "grad_fn is_leaf": "`anaphora.tensor.graph`, what was recorded",
        "register_hook retain_grad": "`anaphora.hook`, which sees every operation and gradient",
        "nelement numel": "`x.size`",
        "dim ndimension": "`x.ndim`",
        "new_zeros new_ones new_full":
            "`anaphora.zeros(shape, dtype=x.dtype)`, `anaphora.ones`, `anaphora.full`",
        "is_floating_point": "`x.dtype.kind == 'f'`",
    },
    "RowGradient": {
        "sum mean max min std copy reshape ravel tolist T size ndim astype norm":
            "`gradient.dense()`, which is an array (`np.asarray(gradient)` too)",
        "coalesce": "omit it: each row occurs once",
        "to_dense numpy data": "`gradient.dense()`",
        "_indices": "`gradient.indices`",
        "_values": "`gradient.values`",
    },
    "Module": {
        "cuda cpu device": _CPU + "; `module.to(dtype)` converts the numbers",
        "half bfloat16": _BFLOAT16,
        "register_parameter register_module add_module": "`self.name = Parameter(...)` or a module",
        "get_parameter get_submodule get_buffer": "`dict(module.named_parameters())[name]`",
        "register_backward_hook register_full_backward_hook":
            "`anaphora.hook`, which sees every operation and gradient",
        "flatten_parameters share_memory compile": "omit it",
        "fit train_on_batch": "`training.Trainer`",
        "predict": "`model.eval()`, then `model(x)` within `no_grad()`",
        "summary": "`print(model)`",
        "get_weights": "`model.state_dict()`",
        "set_weights": "`model.load_state_dict(state)`",
        "reset_states": "omit it: the state is what you pass to the next call",
    },
    "Optimizer": {
        "param_groups lr": "`optimizer.learning_rate`; `optimizer.groups` shows those of groups",
        "add_param_group": "a list of all groups when the optimizer is made",
        "state": "`optimizer.state_dict()`",
        "minimize apply_gradients": "`loss.backward()`, then `optimizer.step()`",
    },
    "Schedule": {
        "step": "`schedule.on_step(step)`, `on_epoch(epoch)` and `on_evaluation(loss)`",
        "get_last_lr get_lr": "`schedule.learning_rate`",
    },
    "anaphora.nn": {
        "functional": "`anaphora.ops`, or methods of Tensors",
        "utils": "`optim.clip_grad_norm`, `ops.pad_sequence`; `lengths=` of a layer, not packing",
        "init": "`initialization=` of a layer, or `with p.writing() as array`",
        "MultiLabelSoftMarginLoss": "`nn.BCEWithLogitsLoss()`",
        "GaussianNLLLoss": "`ops.gaussian_nll_loss(mean, deviation, targets)`",
        "KLDivLoss": "`(p * (ops.log(p) - log_q)).sum()`",
        "RNNBase": "`nn.Recurrent(cell, input_size, hidden_size)`",
        "RNNCellBase": "`nn.RecurrentCell(cell, input_size, hidden_size)`",
        "Unflatten": "`x.reshape(...)` in forward",
        "InstanceNorm1d": "`nn.GroupNorm(channels, channels)`",
        "AdaptiveAvgPool1d AdaptiveMaxPool1d": "`x.mean(axis=0)`, `x.max(axis=0)` of x [T, B, I]",
        "EmbeddingBag": "`nn.Embedding(V, E)(ids).mean(axis)`",
        "BatchNorm2d Conv2d Transformer TransformerEncoder":
            "nothing: the networks here are recurrent",
        "DataParallel": _CPU,
        "Dense": "`nn.Linear(in_features, out_features)`",
        "Bidirectional": "`bidirectional=True` of a layer",
        "SimpleRNN": "`nn.RNN`",
        "TimeDistributed": "omit it: `nn.Linear` takes any leading axes",
        "Masking": "`lengths=` of a layer",
    },
    "anaphora.nn.init": {
        "eye_ dirac_ sparse_ trunc_normal_": _WRITING,
        "uniform normal constant xavier_uniform xavier_normal kaiming_uniform kaiming_normal "
        "orthogonal": "`nn.init.uniform_(p)` and so on, with `_`",
    },
    "anaphora.ops": {
        "cat": "`ops.concatenate`",
        "bmm mm dot": "`ops.matmul`",
        "outer": "`ops.einsum('i,j->ij', a, b)`",
        "gather take_along_dim": "`ops.take_along_axis(x, indices, axis)`",
        "repeat_interleave": "`ops.repeat`",
        "amax amin": "`ops.max`, `ops.min`",
        "swish": "`ops.silu`",
        "mse_loss": "`ops.mean_squared_error`",
        "multi_head_attention_forward": "`nn.MultiheadAttention`",
        "smooth_l1_loss": "`ops.huber_loss(y, targets, delta=beta) / beta`",
        "multilabel_soft_margin_loss":
            "`ops.binary_cross_entropy_with_logits(logits, targets)`",
        "permute": "`ops.transpose`",
        "view": "`ops.reshape`",
        "unsqueeze": "`ops.expand_dims(x, axis)`",
        "movedim": "`ops.moveaxis`",
        "expand": "`ops.broadcast_to`",
        "chunk": "`ops.split`",
        "unbind": "`ops.unstack`",
        "clamp": "`ops.clip(x, min, max)`",
        "pow": "`ops.power`",
        "scaled_dot_product_attention": "`nn.MultiheadAttention`, `nn.MultiplicativeAttention`",
        "normalize": "`x / x.norm(axis=-1, keepdims=True)`; `ops.layer_norm`",
    },
    "anaphora.optim": {
        "lr_scheduler": "schedules: `optim.Cosine`, `optim.ExponentialDecay`, `optim.WarmUp`",
        "CosineAnnealingLR": "`optim.Cosine(optimizer, total_steps=...)`",
        "StepLR": "`optim.StepDecay(optimizer, epochs=step_size, decay=gamma)`",
        "ExponentialLR MultiStepLR LambdaLR": "`optim.ExponentialDecay`, or a `Schedule`",
        "ReduceLROnPlateau": "`optim.ReduceOnPlateau`",
        "OneCycleLR": "`optim.OneCycle(optimizer, total_steps=...)`; its peak is the optimizer's",
        "LinearLR": "`optim.WarmUp(optim.Cosine(...), steps=...)`",
        "clip_grad_norm_": "`optim.clip_grad_norm(parameters, max_norm)`",
        "clip_grad_value_": "`optim.clip_grad_value(parameters, limit)`",
        "SparseAdam": "`optim.Adam`, which takes gradients of rows",
        "Adamax Rprop": "`optim.Adam` or another of `optim.OPTIMIZERS`",
    },
    "anaphora": {
        "as_tensor from_numpy FloatTensor LongTensor": "`Tensor(array)`",
        "linspace eye tril triu randperm": "NumPy's, then `Tensor(array)`",
        "empty": "`anaphora.zeros(shape)`",
        "zeros_like ones_like empty_like full_like":
            "`anaphora.zeros(x.shape)`, `anaphora.ones(x.shape)`, `anaphora.full(x.shape, 3.0)`",
        "randn_like rand_like": "`anaphora.randn(x.shape)`, `anaphora.rand(x.shape)`",
        "float32 float64 int64 long": "NumPy's dtypes",
        "bfloat16 autocast amp": _BFLOAT16,
        "set_float32_matmul_precision": "`anaphora.set_matmul_precision('bfloat16')`",
        "get_float32_matmul_precision": "`engine.current_matmul_precision()`",
        "quantization ao": "`models.quantize(directory, out)`, or `model.weights = 'int8'`",
        "onnx": "`anaphora.interop.onnx.save(model, path)`",
        "GradScaler": "omit it: bfloat16 has the range of float32",
        "cat": "`ops.concatenate`",
        "unsqueeze clamp permute gather bmm mm": "methods of Tensors, or `anaphora.ops`",
        "manual_seed": "`anaphora.random.seed(1)`",
        "save": "`model.save(directory)`, or `artifact.write_weights(path, model.state_dict())`",
        "device cuda": _CPU,
        "enable_grad set_grad_enabled": "omit it: only `no_grad()` turns recording off",
        "inference_mode": "`no_grad()`",
        "is_grad_enabled": "`tensor.recording()`",
        "autograd": "`loss.backward()`; `anaphora.differentiable` for a custom operation",
        "Function": "`anaphora.differentiable`",
        "set_num_threads get_num_threads": "`engine.set_num_threads(2)`, `engine.info()`",
        "compile jit": "omit it: cells are compiled where they are declared",
        "functional": "`anaphora.ops`",
        "utils": "`training.DataLoader`, `training.TensorDataset`",
        "keras layers": "`anaphora.nn`",
        "pack_padded_sequence": _PACKING,
    },
    "arguments": {
        "lr": "`learning_rate=`",
        "dim dims": "`axis=`",
        "keepdim": "`keepdims=`",
        "start_dim end_dim": "`start_axis=`, `end_axis=`",
        "dim0 dim1": "`axis1=`, `axis2=`",
        "shifts": "`shift=`",
        "index": "`indices=`",
        "unbiased correction": "`ddof=1`, PyTorch's default; here it is 0, as in NumPy",
        "value": "`constant_values=` of `ops.pad`",
        "dtype": "`x.astype(dtype)` before it",
        "sorted stable kind": "omit it: the order is always stable",
        "eps": "`epsilon=`",
        "device non_blocking": _CPU,
        "amsgrad maximize foreach fused capturable differentiable dampening": "omit it",
        "p": "`rate=` of dropout, `ord=` of a norm",
        "h0 hx initial_state": "`state=`",
        "mask sequence_length": "`lengths=`, or `where=` of a loss",
        "training": "omit it: `model.train()` and `model.eval()` set it",
        "units": "`hidden_size=`, and the size of the input before it, `input_size=`",
        "return_sequences return_state stateful":
            "omit it: a layer returns all outputs and the state, and takes a state",
        "recurrent_dropout": "`weight_dropout=` or `zoneout=`",
        "enforce_sorted": "omit it: lengths may be in any order",
        "elementwise_affine": "omit it: `bias=False` omits the bias",
        "count_include_pad ceil_mode return_indices": "omit it",
        "inplace out": "omit it: an operation returns a new Tensor",
        "weight": "`class_weights=` of a loss over classes",
        "label_smoothing": "`label_smoothing=` of `ops.cross_entropy`",
        "beta": "`delta=`",
        "T_max": "`total_steps=`",
        "max_iter": "`max_iterations=`",
        "step_size": "`epochs=`",
        "max_lr": "`learning_rate=` of the optimizer",
        "gamma": "`decay=`",
        "eta_min min_lr": "`minimum=`",
        "size_average reduce": "`reduction=`",
        "clip_value": "`limit=`",
        "num_workers pin_memory persistent_workers prefetch_factor":
            "omit it: batches are made when they are asked for",
        "sampler batch_sampler": "a dataset that has its examples in that order",
    },
}  # fmt: skip
"""What to write instead of a name, as Markdown."""

CALLS = {
    "x.view(3, 20)": "x.reshape(3, 20)",
    "x.unsqueeze(1)": "x.expand_dims(1)",
    "x[:1].squeeze(dim=0)": "x[:1].squeeze(axis=0)",
    "x.permute(2, 0, 1)": "x.transpose(2, 0, 1)",
    "x.transpose(0, 1)": "x.swapaxes(0, 1)",
    "x.flatten(start_dim=1)": "x.flatten(start_axis=1)",
    "x.expand(2, 3, 4, 5)": "x.broadcast_to((2, 3, 4, 5))",
    "x.repeat(2, 1, 1)": "x.tile((2, 1, 1))",
    "x.repeat_interleave(2, dim=1)": "x.repeat(2, axis=1)",
    "x.size(0)": "x.shape[0]",
    "x.numel()": "x.size",
    "torch.cat([x, x], dim=1)": "ops.concatenate([x, x], axis=1)",
    "torch.stack([x, x], dim=1)": "ops.stack([x, x], axis=1)",
    "x.split(2, dim=1)[1]": "ops.split(x, [2], axis=1)[1]",
    "x.chunk(2, dim=1)[0]": "ops.split(x, 2, axis=1)[0]",
    "x.sum(dim=(0, 2), keepdim=True)": "x.sum(axis=(0, 2), keepdims=True)",
    "x.max(dim=1).values": "x.max(axis=1)",
    "x.max(dim=1).indices": "x.argmax(axis=1)",
    "x.min(dim=1)[0]": "x.min(axis=1)",
    "x.sort(dim=1).values": "x.sort(axis=1)",
    "x.sort(descending=True).indices": "x.argsort(descending=True)",
    "x.topk(2, dim=1).values": "x.topk(2, axis=1).values",
    "x.var(dim=1)": "x.var(axis=1, ddof=1)",
    "x.std()": "x.std(ddof=1)",
    "x.norm(p=2, dim=-1)": "x.norm(axis=-1)",
    "F.normalize(x, dim=-1)": "x / x.norm(axis=-1, keepdims=True)",
    "x.cumsum(dim=0)": "x.cumsum(axis=0)",
    "x.softmax(dim=-1)": "x.softmax(axis=-1)",
    "torch.logsumexp(x, dim=-1)": "ops.logsumexp(x, axis=-1)",
    "x.clamp(min=0, max=1)": "x.clip(min=0, max=1)",
    "x.gather(1, ids)": "x.take_along_axis(ids, axis=1)",
    "x.index_select(1, row)": "x[:, row]",
    "x.masked_select(x > 0)": "x[x > 0]",
    "torch.where(x > 0, x, 0.0)": "ops.where(x > 0, x, 0.0)",
    "torch.flip(x, dims=(0,))": "ops.flip(x, axis=0)",
    "torch.roll(x, shifts=2, dims=1)": "ops.roll(x, shift=2, axis=1)",
    "torch.bmm(x, x.transpose(1, 2))": "x @ x.swapaxes(1, 2)",
    "torch.einsum('bij,bkj->bik', x, x)": "ops.einsum('bij,bkj->bik', x, x)",
    "torch.outer(x[0, 0], x[1, 1])": "ops.einsum('i,j->ij', x[0, 0], x[1, 1])",
    "F.pad(x, (2, 1))": "ops.pad(x, {-1: (2, 1)})",
    "F.pad(x, (0, 0, 2, 1), value=3.0)": "ops.pad(x, {-2: (2, 1)}, constant_values=3.0)",
    "F.pad(x, (2, 1), mode='replicate')": "ops.pad(x, {-1: (2, 1)}, mode='edge')",
    "F.one_hot(ids, 6).float()": "ops.one_hot(ids, 6)",
    "F.gelu(x, approximate='tanh')": "ops.gelu(x, approximate='tanh')",
    "F.smooth_l1_loss(x, x * x)": "ops.huber_loss(x, x * x)",
    "torch.zeros(2, 3)": "anaphora.zeros(2, 3)",
    "torch.full((2, 3), 0.5)": "anaphora.full((2, 3), 0.5)",
    "torch.arange(2, 8, 3)": "anaphora.arange(2, 8, 3)",
    "(x > 0).float().mean()": "(x > 0).mean()",
    "torch.tensor([0.5, 1.5])": "anaphora.Tensor([0.5, 1.5])",
    "torch.from_numpy(row.numpy())": "anaphora.Tensor(row)",
    "torch.multinomial(x[0].softmax(-1), 5).sort().values":
        "anaphora.multinomial(x[0].softmax(-1), 5).sort()",
    "torch.nn.utils.rnn.pad_sequence([x[0], x[1, :2]])": "ops.pad_sequence([x[0], x[1, :2]])",
}  # fmt: skip
"""Calls of PyTorch, of Tensors x [3, 4, 5], ids and row of integers, with what to write here."""


@functools.cache
def _names(owner: str) -> dict[str, str]:
    return {name: advice for names, advice in NAMES[owner].items() for name in names.split()}


def advice(owner: str, name: str) -> str | None:
    """What to write instead of a name, as plain text.

    >>> advice("Tensor", "view"), advice("Tensor", "nonsense")
    ('write x.reshape(...)', None)
    """
    found = _names(owner).get(name)
    if found is None:
        return None
    return ("write " if found.startswith("`") else "") + found.replace("`", "")


def attribute_missing(value: Any, owner: str, name: str) -> NoReturn:
    """Raise the error for a missing attribute, with what to write if another library has it.

    For ``__getattr__`` of a class.

    Raises:
        AttributeError: always.
    """
    hint = None if name.startswith("__") or hasattr(type(value), name) else advice(owner, name)
    if hint:
        raise AttributeError(f"{type(value).__name__} has no attribute {name!r}: {hint}")
    object.__getattribute__(value, name)  # raises for what is missing, also within a property
    raise AttributeError(name)


def module_getattr(
    package: str,
    elsewhere: Callable[[str], str | None] = lambda name: None,
    parts: Mapping[str, Collection[str]] = {},
) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which says what to write for a name that it does not have.

    Args:
        package: Its name, as in the table.
        elsewhere: Advice for names that are not in the table, or None.
        parts: Its modules that are imported lazily, and the names of each that the package
            exports too.
    """
    homes = {name: part for part, names in parts.items() for name in names}

    def hint(name: str) -> str | None:
        return None if name.startswith("__") else advice(package, name) or elsewhere(name)

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name in parts:
            return importlib.import_module(f"{package}.{name}")
        if name in homes:
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        message, answer = f"module {package!r} has no attribute {name!r}", hint(name)
        raise AttributeError(f"{message}: {answer}" if answer else message, name=name)

    _ImportAnswers.packages[package] = hint
    return __getattr__


class _ImportAnswers:
    """The last finder of imported modules: it finds none, but may raise with advice.

    ``from package import name`` ends up here too, and would lose the message of an AttributeError.
    """

    packages: ClassVar[dict[str, Callable[[str], str | None]]] = {}

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> None:
        package, _, last = name.rpartition(".")
        if package in cls.packages and (hint := cls.packages[package](last)):
            raise ImportError(f"cannot import name {last!r} from {package!r}: {hint}", name=name)


sys.meta_path.append(_ImportAnswers)


class TensorModule(ModuleType):
    """The module `anaphora.tensor`, whose name is a function in PyTorch: a call is answered."""

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:  # noqa: D102
        raise TypeError("anaphora.tensor is a module: write anaphora.Tensor(data)")


def check_arguments(owner: str, given: Collection[str], accepted: Collection[str]) -> None:
    """Refuse arguments named as in other libraries, with their names here.

    Raises:
        TypeError: a given argument is not accepted, and is in the table.

    >>> check_arguments("Adam", {"lr": 0.1}, ["learning_rate"])
    Traceback (most recent call last):
    TypeError: Adam: there is no argument 'lr': write learning_rate=
    """
    for name in given:
        if name not in accepted and (hint := advice("arguments", name)):
            raise TypeError(f"{owner}: there is no argument {name!r}: {hint}")


def arguments_checked(function: F) -> F:
    """Decorate a function so that it calls `check_arguments`.

    >>> @arguments_checked
    ... def total(x, axis=0):
    ...     return x
    >>> total(1, dim=0)
    Traceback (most recent call last):
    TypeError: total: there is no argument 'dim': write axis=
    """
    accepted = _accepted(function.__code__)
    owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        if options:
            check_arguments(owner, options, accepted)
        return function(*arguments, **options)

    return cast(F, checked)


def _accepted(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


class Answering:
    """A base class that gives advice from the table for missing attributes and arguments.

    Attributes:
        foreign_names: The name of the class in the table.

    >>> class Rate(Answering):
    ...     foreign_names = "Optimizer"
    >>> Rate().param_groups
    Traceback (most recent call last):
    AttributeError: Rate has no attribute 'param_groups': write optimizer.learning_rate; optimize...
    """

    foreign_names: ClassVar[str]

    if not TYPE_CHECKING:  # type checkers should see the real arguments and attributes only

        def __new__(cls, *arguments: Any, **options: Any) -> Self:  # noqa: D102
            _check_constructor(cls, options)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:
            attribute_missing(self, type(self).foreign_names, name)


def _check_constructor(made: type, given: Mapping[str, Any]) -> None:
    """`check_arguments` for the constructor of a class, and those of its bases here."""
    if not given.keys() & _names("arguments").keys():
        return
    accepted: set[str] = set()
    for owner in made.__mro__[:-1]:
        init: Any = vars(owner).get("__init__")
        if init is None:
            continue
        code = getattr(init, "__code__", None)
        takes_any = code is None or bool(code.co_flags & CO_VARKEYWORDS)
        if takes_any and not owner.__module__.startswith("anaphora."):
            return  # whatever it does with them
        if code is not None:
            accepted |= set(_accepted(code))
        if not takes_any:
            break
    check_arguments(made.__name__, given, accepted)


def markdown() -> str:
    """The table, as in the documentation."""
    titles = {
        "Tensor": "Attributes of Tensors",
        "RowGradient": "Attributes of gradients of embeddings (`RowGradient`)",
        "Module": "Attributes of modules",
        "Optimizer": "Attributes of optimizers",
        "Schedule": "Attributes of schedules",
        "anaphora.nn": "`torch.nn`, `keras.layers`",
        "anaphora.ops": "`torch.nn.functional`",
        "anaphora.optim": "`torch.optim`",
        "anaphora": "`torch`",
        "arguments": "Arguments",
    }
    lines = ["### Calls", "", "| there | here |", "|---|---|"]
    lines += [f"| `{theirs}` | `{ours}` |" for theirs, ours in CALLS.items()]
    lines.append("")
    for owner, names in NAMES.items():
        lines += [f"### {titles[owner]}", "", "| there | here |", "|---|---|"]
        for key, text in names.items():
            lines.append(f"| {', '.join(f'`{name}`' for name in key.split())} | {text} |")
        lines.append("")
    return "\n".join(lines)
