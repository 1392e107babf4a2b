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

# By owner; a key holds several names, separated by spaces. Arguments of one function or class alone
# are written with its name, as in "Softplus.beta".
NAMES: dict[str, dict[str, str]] = {
    "Tensor": {
        "view view_as reshape_as resize resize_ unflatten": "`x.reshape(...)`",
        "ravel": "`x.flatten()`",
        "unsqueeze": "`x.expand_dims(axis)`",
        "permute t":
            "`x.transpose(...)`, or `x.T`; omit it around `nn.Conv1d`, which reads [T, B, I]",
        "swapdims mT": "`x.swapaxes(axis1, axis2)`",
        "movedim moveaxis": "`ops.moveaxis(x, source, destination)`",
        "contiguous is_contiguous stride storage data_ptr":
            "omit it: operations take any layout",
        "expand expand_as": "`x.broadcast_to(shape)`",
        "repeat_interleave": "`x.repeat(2, axis=0)`",
        "fliplr flipud": "`x.flip(axis=1)`, `x.flip(axis=0)`",
        "cat concat": "`ops.concatenate([x, y], axis=0)`",
        "vstack hstack row_stack column_stack": "`ops.concatenate([x, y], axis=0)`, or axis=1",
        "chunk": "`ops.split(x, sections, axis=0)`",
        "split split_with_sizes tensor_split hsplit vsplit":
            "`ops.split(x, [2, 5], axis=0)`: the places of the cuts, or the number of equal parts",
        "unbind": "`ops.unstack(x)`, or a loop over x",
        "narrow": "`x[start : start + length]`, or `x[:, start : start + length]` along axis 1",
        "unfold":
            "`ops.stack([x[k : k + size] for k in range(0, len(x) - size + 1, step)])`, windows",
        "mm bmm mv dot matmul vdot": "`x @ y`",
        "addmm addmv baddbmm": "`x + y @ z`",
        "addcmul": "`x + value * y * z`",
        "addcdiv": "`x + value * y / z`",
        "add sub subtract mul multiply div divide true_divide":
            "`x + y`, `x - y`, `x * y`, `x / y`",
        "add_ sub_ mul_ div_ pow_ neg_ addcmul_ lerp_ copy_ fill_ fill zero_ clamp_ clip_ "
        "masked_fill_ index_fill_ index_copy_ index_add_ scatter_ scatter_add_ put put_ "
        "fill_diagonal_ normal_ uniform_ bernoulli_ exponential_ random_ apply_ tril_ triu_ "
        "subtract_ multiply_ divide_ addcdiv_ addmm_": _WRITING,
        "exp_ log_ sqrt_ sin_ cos_ tanh_ sigmoid_ relu_ abs_ round_ floor_ ceil_ squeeze_ "
        "transpose_ swapaxes_ cumsum_":
            "`x = x.exp()` and so on: an operation returns a new Tensor",
        "pow float_power": "`x ** number`",
        "square": "`x * x`",
        "neg negative": "`-x`",
        "positive": "omit it: `+x` is x",
        "absolute": "`x.abs()`",
        "reciprocal": "`1 / x`",
        "rsqrt": "`1 / x.sqrt()`",
        "log2": "`x.log() / math.log(2)`",
        "log10": "`x.log() / math.log(10)`",
        "exp2": "`(x * math.log(2)).exp()`",
        "log1p expm1": "`ops.log(1 + x)`, `ops.exp(x) - 1`",
        "tan": "`x.sin() / x.cos()`",
        "sinh cosh": "`(x.exp() - (-x).exp()) / 2`, with `+` for the cosine",
        "erfc": "`1 - ops.erf(x)`",
        "logit": "`(x / (1 - x)).log()`",
        "xlogy": "`x * ops.log(y)`",
        "prelu": "`ops.where(x > 0, x, weight * x)`, or `nn.PReLU()`",
        "trunc fix": "`ops.sign(x) * x.abs().floor()`",
        "frac": "`x - ops.sign(x) * x.abs().floor()`",
        "clamp": "`x.clip(min, max)`",
        "clamp_min": "`x.clip(min=0)`",
        "clamp_max": "`x.clip(max=1)`",
        "fmax fmin": "`ops.maximum(x, y)`, `ops.minimum(x, y)`",
        "amin": "`x.min(axis)`",
        "amax": "`x.max(axis)`",
        "aminmax": "`x.min(axis)` and `x.max(axis)`",
        "gather take_along_dim": "`x.take_along_axis(indices, axis)`",
        "scatter scatter_add scatter_reduce index_add index_copy index_fill index_put "
        "masked_scatter": "`ops.where`, or the gradient of `x[index]`",
        "index_select select take": "`x[index]`, or `x[:, index]` along axis 1",
        "masked_select": "`x[mask]`",
        "sign sgn": "`ops.sign(x)`",
        "remainder": "`x % y`",
        "floor_divide": "`x // y`",
        "eq ne not_equal lt less le less_equal gt greater ge greater_equal":
            "`x == y`, `x != y`, `x < y` and so on: arrays of booleans",
        "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
        "bitwise_not": "`mask & other`, `mask | other`, `mask ^ other`, `~mask`",
        "isnan isinf isfinite isclose allclose":
            "`np.isnan(x)` and so on: NumPy's, arrays of booleans",
        "equal": "`np.array_equal(x, y)`",
        "count_nonzero": "`(x != 0).sum()`",
        "nan_to_num": "`ops.where(np.isnan(x), 0.0, x)`",
        "nansum": "`ops.where(np.isnan(x), 0.0, x).sum()`",
        "nonzero argwhere unique bincount median quantile nanmean cumprod cummax cummin cov "
        "corrcoef kron cross fmod atan2 arctan2 asin acos atan arcsin arccos arctan hypot trapz":
            "NumPy's function, of `x.data`: it has no gradient",
        "det logdet slogdet inverse pinverse svd qr cholesky matrix_power":
            "NumPy's function in `np.linalg`, of `x.data`: it has no gradient",
        "ptp": "`x.max() - x.min()`",
        "flat": "`x.flatten()`",
        "kthvalue": "`x.sort(axis)[k - 1]`",
        "msort": "`x.sort(axis=0)`",
        "where": "`ops.where(condition, x, other)`",
        "lerp": "`x + weight * (y - x)`",
        "diff": "`x[1:] - x[:-1]`",
        "dist": "`(x - y).norm()`",
        "logaddexp": "`ops.logsumexp(ops.stack([x, y]), axis=0)`",
        "outer ger inner tensordot": "`ops.einsum('i,j->ij', x, y)` and so on",
        "trace": "`ops.einsum('ii', x)`",
        "diagonal diag": "`ops.einsum('ii->i', x)`",
        "diag_embed": "`x.expand_dims(-1) * np.eye(n)`",
        "tril": "`ops.where(np.tri(rows, columns) > 0, x, 0.0)`",
        "triu": "`ops.where(np.tri(rows, columns, -1) > 0, 0.0, x)`",
        "float double half long int short byte bool type type_as": "`x.astype(dtype)`",
        "bfloat16": _BFLOAT16,
        "to cuda cpu device get_device is_cuda is_cpu is_mps pin_memory is_pinned": _CPU,
        "clone copy": "omit it, operations never change x; `Tensor(x)` copies the numbers",
        "detach_": "`x = x.detach()`",
        "requires_grad_": "`x.requires_grad = True`",
        "grad_fn is_leaf": "`anaphora.tensor.graph`, what was recorded",
        "register_hook retain_grad retains_grad register_post_accumulate_grad_hook":
            "`anaphora.hook`, which sees every operation and gradient",
        "nelement numel": "`x.size`",
        "dim ndimension": "`x.ndim`",
        "nbytes itemsize element_size": "`x.data.nbytes`, `x.data.itemsize`",
        "new_zeros new_ones new_full new_empty":
            "`anaphora.zeros(shape, dtype=x.dtype)`, `anaphora.ones`, `anaphora.full`",
        "new_tensor new": "`Tensor(values, dtype=x.dtype)`",
        "is_floating_point": "`x.dtype.kind == 'f'`",
        "multinomial": "`anaphora.multinomial(x, num_samples)`",
        "bernoulli": "`anaphora.rand(x.shape) < x`",
        "share_memory_ to_dense": "omit it",
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
        "get_parameter get_submodule get_buffer":
            "`dict(module.named_parameters())[name]`, `module.named_modules()` and so on",
        "set_submodule": "`setattr(parent, name, module)`",
        "type": "`module.to(dtype)`",
        "all_weights": "`list(module.parameters())`",
        "get_extra_state set_extra_state": "`module.register_buffer(name, values)`",
        "register_state_dict_pre_hook register_state_dict_post_hook "
        "register_load_state_dict_pre_hook register_load_state_dict_post_hook":
            "a `state_dict` or `load_state_dict` of your class, which calls `super()`",
        "register_backward_hook register_full_backward_hook register_full_backward_pre_hook":
            "`anaphora.hook`, which sees every operation and gradient",
        "flatten_parameters share_memory compile to_empty": "omit it",
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
        "defaults": "`optimizer.learning_rate` and its other attributes",
        "register_step_pre_hook register_step_post_hook":
            "your own call before or after `optimizer.step()`",
        "minimize apply_gradients": "`loss.backward()`, then `optimizer.step()`",
    },
    "Schedule": {
        "step": "`schedule.on_step(step)`, `on_epoch(epoch)` and `on_evaluation(loss)`",
        "get_last_lr get_lr": "`schedule.learning_rate`",
        "base_lrs": "`schedule.initial_learning_rate`",
        "last_epoch": "omit it: you count epochs and steps",
    },
    "anaphora.nn": {
        "functional": "`anaphora.ops`, or methods of Tensors",
        "utils": "`optim.clip_grad_norm`, `ops.pad_sequence`; `lengths=` of a layer, not packing",
        "clip_grad_norm_": "`optim.clip_grad_norm(parameters, max_norm)`",
        "clip_grad_value_": "`optim.clip_grad_value(parameters, limit)`",
        "pad_sequence": "`ops.pad_sequence(sequences)`",
        "pack_padded_sequence pad_packed_sequence pack_sequence PackedSequence": _PACKING,
        "parameters_to_vector": "`ops.concatenate([p.flatten() for p in model.parameters()])`",
        "vector_to_parameters": "`with p.writing() as array: array[...] = values` of each",
        "weight_norm spectral_norm parametrizations":
            "nothing; the cell `layer_norm_lstm` normalizes inside the step",
        "MultiLabelSoftMarginLoss": "`nn.BCEWithLogitsLoss()`",
        "GaussianNLLLoss": "`ops.gaussian_nll_loss(mean, deviation, targets)`",
        "KLDivLoss": "`(p * (ops.log(p) - log_q)).sum()`",
        "PoissonNLLLoss": "`(log_rate.exp() - targets * log_rate).mean()`",
        "MarginRankingLoss": "`(margin - y * (x1 - x2)).relu().mean()`",
        "TripletMarginLoss":
            "`((x - near).norm(axis=-1) - (x - far).norm(axis=-1) + margin).relu().mean()`",
        "CosineEmbeddingLoss":
            "`ops.where(y > 0, 1 - c, (c - margin).relu()).mean()` of `ops.cosine_similarity`",
        "HingeEmbeddingLoss": "`ops.where(y > 0, x, (margin - x).relu()).mean()`",
        "SoftMarginLoss": "`ops.softplus(-y * x).mean()`",
        "RNNBase": "`nn.Recurrent(cell, input_size, hidden_size)`",
        "RNNCellBase": "`nn.RecurrentCell(cell, input_size, hidden_size)`",
        "Unflatten": "`x.reshape(...)` in forward",
        "Hardtanh": "`x.clip(-1, 1)` in forward",
        "ReLU6": "`x.clip(0, 6)` in forward",
        "Hardsigmoid": "`(x / 6 + 0.5).clip(0, 1)` in forward",
        "Hardswish": "`x * (x / 6 + 0.5).clip(0, 1)` in forward",
        "LogSigmoid": "`-ops.softplus(-x)` in forward",
        "Softsign": "`x / (1 + x.abs())` in forward",
        "Mish": "`x * ops.softplus(x).tanh()` in forward",
        "CELU": "`alpha * ops.elu(x / alpha)` in forward",
        "SELU": "`1.0507010 * ops.elu(x, 1.6732632)` in forward",
        "Tanhshrink": "`x - x.tanh()` in forward",
        "Softmin": "`ops.softmax(-x)` in forward",
        "Threshold": "`ops.where(x > threshold, x, value)` in forward",
        "Hardshrink": "`ops.where(x.abs() > limit, x, 0.0)` in forward",
        "PairwiseDistance": "`(x - y).norm(axis=-1)` in forward",
        "Bilinear": "`ops.einsum('bi,oij,bj->bo', x, weight, y)` in forward",
        "ZeroPad1d ConstantPad1d": "`ops.pad(x, {0: (2, 1)})` of x [T, B, I] in forward",
        "ReplicationPad1d ReflectionPad1d CircularPad1d":
            "`ops.pad(x, {0: (2, 1)}, mode='edge')`, 'reflect' or 'wrap' in forward",
        "Upsample": "`x.repeat(2, axis=0)` of x [T, B, I] in forward",
        "Dropout1d AlphaDropout": "`nn.Dropout(rate)`, or `locked_dropout=` of a recurrent layer",
        "InstanceNorm1d": "`nn.GroupNorm(channels, channels)`",
        "AdaptiveAvgPool1d AdaptiveMaxPool1d": "`x.mean(axis=0)`, `x.max(axis=0)` of x [T, B, I]",
        "EmbeddingBag": "`nn.Embedding(V, E)(ids).mean(axis)`",
        "LazyLinear LazyConv1d LazyBatchNorm1d": "the same without Lazy: sizes are given",
        "AdaptiveLogSoftmaxWithLoss": "`ops.linear_cross_entropy(x, weight, bias, targets)`",
        "BatchNorm2d Conv2d MaxPool2d ConvTranspose1d Transformer TransformerEncoder "
        "TransformerDecoder TransformerEncoderLayer TransformerDecoderLayer":
            "nothing: the networks here are recurrent",
        "DataParallel parallel SyncBatchNorm": _CPU,
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
        "swish": "`ops.silu`",
        "mse_loss": "`ops.mean_squared_error`",
        "kl_div": "`(p * (ops.log(p) - log_q)).sum()`",
        "poisson_nll_loss": "`(log_rate.exp() - targets * log_rate).mean()`",
        "margin_ranking_loss": "`(margin - y * (x1 - x2)).relu().mean()`",
        "triplet_margin_loss":
            "`((x - near).norm(axis=-1) - (x - far).norm(axis=-1) + margin).relu().mean()`",
        "cosine_embedding_loss":
            "`ops.where(y > 0, 1 - c, (c - margin).relu()).mean()` of `ops.cosine_similarity`",
        "hinge_embedding_loss": "`ops.where(y > 0, x, (margin - x).relu()).mean()`",
        "soft_margin_loss": "`ops.softplus(-y * x).mean()`",
        "multi_head_attention_forward": "`nn.MultiheadAttention`",
        "smooth_l1_loss": "`ops.huber_loss(y, targets, delta=beta) / beta`",
        "multilabel_soft_margin_loss":
            "`ops.binary_cross_entropy_with_logits(logits, targets)`",
        "scaled_dot_product_attention":
            "`(q @ k.swapaxes(-1, -2) / math.sqrt(H)).softmax() @ v`, or `nn.MultiheadAttention`",
        "normalize": "`x / x.norm(axis=-1, keepdims=True)`; `ops.layer_norm`",
        "pairwise_distance": "`(x - y).norm(axis=-1)`",
        "cdist": "`(x.expand_dims(-2) - y.expand_dims(-3)).norm(axis=-1)`",
        "hardtanh": "`x.clip(-1, 1)`",
        "relu6": "`x.clip(0, 6)`",
        "hardsigmoid": "`(x / 6 + 0.5).clip(0, 1)`",
        "hardswish": "`x * (x / 6 + 0.5).clip(0, 1)`",
        "logsigmoid": "`-ops.softplus(-x)`",
        "softsign": "`x / (1 + x.abs())`",
        "mish": "`x * ops.softplus(x).tanh()`",
        "celu": "`alpha * ops.elu(x / alpha)`",
        "selu": "`1.0507010 * ops.elu(x, 1.6732632)`",
        "tanhshrink": "`x - x.tanh()`",
        "softmin": "`ops.softmax(-x)`",
        "threshold": "`ops.where(x > threshold, x, value)`",
        "hardshrink": "`ops.where(x.abs() > limit, x, 0.0)`",
        "bilinear": "`ops.einsum('bi,oij,bj->bo', x, weight, y)`",
        "max_pool1d avg_pool1d": "`nn.MaxPool1d(2)(x)`, `nn.AvgPool1d(2)(x)` of x [T, B, I]",
        "adaptive_avg_pool1d adaptive_max_pool1d":
            "`x.mean(axis=0)`, `x.max(axis=0)` of x [T, B, I]",
        "rms_norm group_norm": "`nn.RMSNorm(features)(x)`, `nn.GroupNorm(groups, features)(x)`",
        "embedding_bag": "`ops.embedding(weight, ids).mean(axis)`",
        "dropout1d alpha_dropout": "`ops.dropout(x, rate)`",
        "interpolate upsample": "`x.repeat(2, axis=0)` of x [T, B, I]",
    },
    "anaphora.optim": {
        "lr_scheduler":
            "schedules: `optim.StepDecay`, `optim.Cosine`, `optim.OneCycle`, `optim.WarmUp`, ...",
        "LRScheduler": "`optim.Schedule`",
        "CosineAnnealingLR": "`optim.Cosine(optimizer, total_steps=...)`",
        "StepLR": "`optim.StepDecay(optimizer, epochs=step_size, decay=gamma)`",
        "ExponentialLR": "`optim.ExponentialDecay(optimizer, decay=gamma, constant_epochs=1)`",
        "ConstantLR MultiStepLR LambdaLR MultiplicativeLR PolynomialLR CyclicLR SequentialLR "
        "ChainedScheduler CosineAnnealingWarmRestarts":
            "a class of your own: an `optim.Schedule` with `on_epoch` or `on_step`",
        "ReduceLROnPlateau": "`optim.ReduceOnPlateau`",
        "OneCycleLR": "`optim.OneCycle(optimizer, total_steps=...)`; its peak is the optimizer's",
        "LinearLR": "`optim.WarmUp(optim.Cosine(...), steps=...)`",
        "clip_grad_norm_": "`optim.clip_grad_norm(parameters, max_norm)`",
        "clip_grad_value_": "`optim.clip_grad_value(parameters, limit)`",
        "swa_utils": "`optimizer.start_averaging(decay)`, averages of the parameters",
        "SparseAdam": "`optim.Adam`, which takes gradients of rows",
        "Adamax Rprop Adafactor Muon": "`optim.Adam` or another of `optim.OPTIMIZERS`",
    },
    "anaphora": {
        "as_tensor asarray from_numpy FloatTensor DoubleTensor LongTensor IntTensor BoolTensor "
        "scalar_tensor": "`Tensor(array)`",
        "linspace logspace eye tril triu tril_indices triu_indices randperm meshgrid block_diag "
        "cartesian_prod hann_window hamming_window": "NumPy's, then `Tensor(array)`",
        "empty": "`anaphora.zeros(shape)`",
        "range": "`anaphora.arange(start, stop)`, without the stop",
        "empty_like": "`anaphora.zeros_like(x)`",
        "randint_like": "`anaphora.randint(low, high, x.shape)`",
        "normal": "`mean + deviation * anaphora.randn(shape)`",
        "poisson binomial": "NumPy's, from `anaphora.random.generator()`",
        "Generator get_rng_state set_rng_state initial_seed default_generator":
            "`anaphora.random.generator()`; `get_state()` and `set_state(state)` beside it",
        "std_mean var_mean": "`x.std(ddof=1)` and `x.mean()`",
        "chain_matmul": "`x @ y @ z`",
        "searchsorted bucketize isin histc histogram":
            "NumPy's function, of `x.data`: it has no gradient",
        "linalg": "`x.norm(...)`; other functions of `np.linalg` take `x.data`",
        "is_tensor": "`isinstance(x, Tensor)`",
        "Size": "`tuple`",
        "inf nan pi e": "`math.inf`, `math.nan`, `math.pi`, `math.e`",
        "newaxis": "`x[None]`",
        "finfo iinfo": "`np.finfo(x.dtype)`, `np.iinfo(x.dtype)`",
        "float32 float64 float16 int64 int32 int16 int8 uint8 float double half long int short "
        "bool dtype": "NumPy's dtypes, or their names, such as `'float64'`",
        "get_default_dtype set_default_dtype": "`dtype=` of layers and of `anaphora.zeros`",
        "set_printoptions": "`np.set_printoptions(...)`",
        "use_deterministic_algorithms backends":
            "omit it: the bits of results never depend on threads or batches",
        "set_default_device": _CPU,
        "distributions": "losses: `ops.gaussian_nll_loss`; samples: `anaphora.random.generator()`",
        "vmap func": "omit it: operations take any leading axes",
        "lstm_cell gru_cell rnn_tanh_cell": "`nn.LSTMCell`, `nn.GRUCell`, `nn.RNNCell`",
        "testing": "`np.testing.assert_allclose(x, y)`",
        "bfloat16 autocast amp": _BFLOAT16,
        "set_float32_matmul_precision": "`anaphora.set_matmul_precision('bfloat16')`",
        "get_float32_matmul_precision": "`engine.current_matmul_precision()`",
        "quantization ao": "`models.quantize(directory, out)`, or `model.weights = 'int8'`",
        "onnx": "`anaphora.interop.onnx.save(model, path)`",
        "GradScaler": "omit it: bfloat16 has the range of float32",
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
        "pack_padded_sequence pad_packed_sequence": _PACKING,
    },
    "anaphora.training": {
        "Subset random_split": "`[dataset[i] for i in indices]`: any sequence is a dataset",
        "ConcatDataset StackDataset":
            "`[*one, *other]`, `list(zip(one, other))`: any sequence is a dataset",
        "IterableDataset": "`list(examples)`, or the batches of `anaphora.data`",
        "Sampler BatchSampler RandomSampler SequentialSampler SubsetRandomSampler "
        "WeightedRandomSampler": "`shuffle=True`, or a dataset that has its examples in that order",
        "default_collate default_convert": "`training.collate`",
        "get_worker_info": "omit it: batches are made when they are asked for",
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
        "elementwise_affine": "omit it: `bias=False` omits the bias, `ops.layer_norm(x)` both",
        "return_indices": "omit it",
        "padding_mode": "`ops.pad(x, {0: (2, 1)}, mode='edge')` before it",
        "max_norm norm_type scale_grad_by_freq sparse":
            "omit it: the gradient is of the rows that were looked up",
        "_weight _freeze": "`nn.Embedding.from_pretrained(vectors, freeze=True)`",
        "add_bias_kv add_zero_attn": "omit it",
        "threshold": "omit it: nothing overflows",
        "rounding_mode": "`x // y`",
        "alpha": "`x + alpha * y`",
        "target": "`targets=`, or the second argument",
        "input log_probs size": "the first argument, without a name",
        "zero_infinity": "`impossible='zero'` of `ops.ctc_loss`",
        "tau": "`temperature=`",
        "create_graph": "omit it: gradients of gradients are not recorded",
        "set_to_none": "omit it: gradients become None",
        "axis0": "`axis1=`, `axis2=`",
        "end": "`stop=`",
        "inplace out": "omit it: an operation returns a new Tensor",
        "weight": "`class_weights=` of a loss over classes",
        "label_smoothing": "`label_smoothing=` of `ops.cross_entropy`",
        "beta": "`delta=`",
        "softplus.beta Softplus.beta": "`ops.softplus(beta * x) / beta`",
        "params": "`parameters=`",
        "generator": "`with anaphora.random.seeded(1)` around the call",
        "decoupled_weight_decay": "`optim.AdamW(...)`",
        "lr_decay": "an `optim.Schedule` that divides the rate by `1 + step * lr_decay`",
        "max_eval": "`max_iterations=`",
        "t0 ASGD.alpha ASGD.lambd":
            "omit it: averages begin with `optimizer.start_averaging()`; rates have a `Schedule`",
        "GroupNorm.bias BatchNorm1d.bias": "`layer.bias.requires_grad = False`: it stays 0",
        "input_lengths": "`lengths=`",
        "T_max": "`total_steps=`",
        "max_iter": "`max_iterations=`",
        "step_size": "`epochs=`",
        "max_lr": "`learning_rate=` of the optimizer",
        "gamma": "`decay=`",
        "eta_min min_lr": "`minimum=`",
        "size_average reduce": "`reduction=`",
        "clip_value": "`limit=`",
        "num_workers pin_memory persistent_workers prefetch_factor timeout worker_init_fn":
            "omit it: batches are made when they are asked for",
        "sampler batch_sampler": "a dataset that has its examples in that order",
    },
}  # fmt: skip
"""What to write instead of a name, as Markdown."""

ALSO = {"anaphora.ops": ("Tensor",), "anaphora": ("anaphora.ops", "Tensor")}
"""Where else the answers are: most methods of PyTorch's Tensors are functions too."""

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
    tables = (owner, *ALSO.get(owner, ()))
    found = next((text for table in tables if (text := _names(table).get(name))), None)
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
        if name in accepted:
            continue
        if hint := advice("arguments", f"{owner}.{name}") or advice("arguments", name):
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
    if not given:
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
        "anaphora.nn": "`torch.nn`, `torch.nn.utils`, `keras.layers`",
        "anaphora.nn.init": "`torch.nn.init`",
        "anaphora.ops": "`torch.nn.functional` (and attributes of Tensors)",
        "anaphora.optim": "`torch.optim`",
        "anaphora": "`torch` (and `torch.nn.functional`, attributes of Tensors)",
        "anaphora.training": "`torch.utils.data`",
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
