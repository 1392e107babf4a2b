"""A program for test_native_memory.py: every function of the engine, without enough memory.

Each attempt is a forked child, in which the engine has not run yet, with all that it keeps still to
be asked for. The call must raise a MemoryError and change nothing, or succeed; the same call after
it must have the right bits. A list of what was attempted is printed as JSON.
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import traceback

import numpy as np

from anaphora import engine
from anaphora.cells import gru, lstm, peephole_lstm
from anaphora.engine import LayerWeights
from anaphora.engine.graph import Elementwise, Gather, Product
from anaphora.engine.precision import int8_weights

rng = np.random.default_rng(7)


def normal(*shape, dtype=np.float32):
    return (rng.standard_normal(shape) / 3).astype(dtype)


def positive(*shape):
    return rng.random(shape).astype(np.float32) + np.float32(0.1)


def recurrent(cell, T, B, I, H, P=None, lengths=None, **options):
    """Calls of the recurrence, forward and backward; I = 0: the gates' input halves are given."""
    Gx, Gh, first = len(cell.input_gates), len(cell.recurrent_gates), P or H
    weights = LayerWeights(
        weight_ih=normal(Gx * H, I) if I else None,
        weight_hh=normal(Gh * H, first),
        bias_ih=normal(Gx * H) if I else None,
        bias_hh=normal(Gh * H),
        weight_hr=normal(P, H) if P else None,
        parameters=[normal(H) for _ in cell.parameters],
    )
    states = [normal(B, first), *(normal(B, H) for _ in cell.states[1:])]
    x, lengths = normal(T, B, I or Gx * H), None if lengths is None else np.array(lengths)

    def forward(**more):
        return engine.recurrence_forward(cell.trace, x, states, weights, lengths, **options, **more)

    def backward(steps):
        d = engine.recurrence_backward(
            cell.trace, steps, steps.output, states, x, weights, lengths, **options
        )
        return d.x, *d.weights.flat(), *d.states

    twice = (x, x), (states, states), (weights, weights), lengths

    def both(**more):
        return engine.bidirectional_forward(cell.trace, *twice, **more)

    def both_backward(first, second):
        output, final = (first.output, second.output), (states, states)
        found = engine.bidirectional_backward(
            cell.trace, (first, second), output, final, (x, x), (weights, weights), lengths
        )
        return [array for d in found for array in (d.x, *d.weights.flat(), *d.states)]

    return {
        "forward": (lambda: (), lambda: leaves(forward(record=True, save=False))),
        "saving": (lambda: (), lambda: leaves(forward())),
        "backward": (lambda: (forward(),), backward),
        "both": (lambda: (), lambda: [a for one in both(save=False) for a in leaves(one)]),
        "both saving": (lambda: (), lambda: [a for one in both() for a in leaves(one)]),
        "both backward": (both, both_backward),
    }


def leaves(steps):
    return steps.output, *steps.final, *steps.named.values()


def stack(cell, ids):
    """Calls of packed layers, on ids or on vectors."""
    H, V, B = 130, 50, 3
    G = len(cell.input_gates)
    layers = [
        LayerWeights(normal(G * H, inputs), normal(G * H, H), normal(G * H), normal(G * H))
        for inputs in (20 if ids else 100, H)
    ]
    table, output = normal(V, 20) if ids else None, (normal(V, H), normal(V))
    norms = [] if ids else [(normal(H), normal(H)) for _ in layers]
    x = rng.integers(0, V, (3, B)) if ids else normal(3, B, 100)
    start, uniforms = [normal(2, B, H) for _ in cell.states], rng.random((4, B))

    def pack():
        return engine.pack_layers(cell.trace, H, layers, table, output, norms, 1e-5)

    def states():
        return [state.copy() for state in start]

    calls = {
        "packing": (lambda: (), lambda: (pack().run(x, states()),)),
        "run": (lambda: (pack(), states()), lambda packed, given: (packed.run(x, given), *given)),
    }
    if ids:
        calls["generate"] = (
            lambda: (pack(), states()),
            lambda packed, given: (packed.generate(x, given, uniforms, 0.8, 5, 0.9), *given),
        )
    return calls


def in_place(function, changed, *rest, **options):
    """A call that changes its first arrays; all arrays are new each time."""

    def call(*arrays):
        function(*arrays, *rest, **options)
        return arrays

    return lambda: tuple(array.copy() for array in changed), call


def plain(function, *arguments, **options):
    def call():
        found = function(*arguments, **options)
        return found if isinstance(found, tuple) else (found,)

    return lambda: (), call


def in_int8(case):
    """The same case with int8 weights."""

    def within(function):
        def run(*arguments):
            with int8_weights():
                return function(*arguments)

        return run

    return tuple(map(within, case))


def in_bfloat16(case):
    """The same call with products in bfloat16, for the rest of the child."""
    prepare, call = case

    def prepared():
        engine.set_matmul_precision("bfloat16")
        return prepare()

    return prepared, call


def graph(weight, row):
    """A product, its hyperbolic tangent, and some of that, run once."""
    steps = [
        Product(144, 32, 0, 1, weight, None),
        Elementwise("tanh", 176, 144, 144, 30),
        Gather(208, np.arange(205, 175, -3)),
    ]
    return engine.pack_graph(224, row[:0], [(0, row.shape)], [(208, (10,))], steps)([row])


def table():
    """For each function of the engine its calls: what to prepare, and the call of that."""
    T, B, V, N = 40, 17, 30, 70
    x, weight, vector = normal(N, 130), normal(V, 130), normal(V)
    targets, lengths = rng.integers(0, V, N), rng.integers(0, T + 1, B)
    ids, order = rng.integers(0, N, (T, B)), rng.permutation(N)[:40]
    emissions, square = normal(T, B, V), normal(V, V)
    crf = (emissions, square, vector, vector, lengths)
    labels = rng.integers(0, V - 1, (5, B))
    ctc = (emissions, labels, lengths, rng.integers(0, 6, B), V - 1)
    three, mask = normal(B, 20, 30), rng.random((N, 130)) < 0.8
    many, rows = [positive(9_000, 8) for _ in range(4)], np.arange(0, 9_000, 3)
    d, some = normal(9_000, 8), normal(3_000, 8)
    numbers = {"learning_rate": 0.1, "weight_decay": 0.1}
    adam = {**numbers, "step": 3, "betas": (0.9, 0.99), "epsilon": 1e-3, "decoupled": True}
    rms = {**numbers, "alpha": 0.9, "epsilon": 1e-3, "momentum": 0.5}
    sgd = {**numbers, "momentum": 0.9, "nesterov": True}

    def update(function, count, **options):
        """With a dense gradient, with one of rows, and on arrays that must be copied."""
        first, *others = many[:count]
        odd = [np.asfortranarray(array) for array in many[:count]]

        def call(gradient, **more):
            def run(*arrays):
                function(arrays[0], gradient, *arrays[1:], **options, **more)
                return arrays

            return run

        def copies(arrays):
            return lambda: tuple(array.copy(order="K") for array in arrays)

        return {
            "dense": (copies([first, *others]), call(d)),
            "rows": (copies([first, *others]), call(some, rows=rows)),
            "odd": (copies(odd), call(d)),
        }

    long = [3, 0, 4, 4, 1, 2, 4, 4, 3]
    recurrences = {
        "rows": recurrent(lstm, 4, 9, 100, 130, lengths=long, reverse=True),
        "units": recurrent(gru, 3, 3, 40, 130),
        "given": recurrent(peephole_lstm, 4, 9, 0, 60, lengths=long),
        "projected": recurrent(lstm, 3, 9, 110, 120, P=100),
        "chains": recurrent(gru, 4, 9, 400, 90, reverse=True),
    }
    ids_stack, stack_of_rows = stack(lstm, True), stack(gru, False)
    for name in ("rows", "projected"):
        recurrences[f"bfloat16 {name}"] = {
            kind: in_bfloat16(case) for kind, case in recurrences[name].items()
        }
    _, means, factors = engine.kernels.layer_norm_forward(x, None, None, 0.1)
    alphas = engine.crf.crf_forward(*crf)
    alignments = engine.ctc.ctc_forward(*ctc)
    probabilities = engine.kernels.cross_entropy_forward(x, targets)[1]

    return {
        "matmul": {
            "fixed": plain(engine.matmul, x, weight.T, vector),
            "chains": plain(engine.matmul, x.astype(float), weight.T.astype(float)),
            "input": plain(engine.matmul, x, normal(130, 140), gradient="input"),
            "weight": plain(engine.matmul, normal(90, 200).T, normal(90, 100), gradient="weight"),
            "odd": plain(engine.matmul, x[:, ::2], weight[:, ::2].T),
            "int8": in_int8(plain(engine.matmul, x, weight.T, vector)),
            "int8 odd": in_int8(plain(engine.matmul, x[:, ::2], weight[:, ::2].T)),
            "bfloat16": in_bfloat16(plain(engine.matmul, x[:, ::2], weight[:, ::2].T, vector)),
            "bfloat16 weight": in_bfloat16(
                plain(engine.matmul, normal(90, 200).T, normal(90, 100), gradient="weight")
            ),
        },
        "batch_matmul": {
            "": plain(engine.batch_matmul, three, three.transpose(0, 2, 1)),
            "bfloat16": in_bfloat16(plain(engine.batch_matmul, three, three.transpose(0, 2, 1))),
        },
        "softmax_forward": {"": plain(engine.softmax_forward, x, mask)},
        "softmax_backward": {"": plain(engine.softmax_backward, x, x)},
        "sum_columns": {"": plain(engine.sum_columns, x)},
        "erf": {"": plain(engine.erf, x)},
        "cross_entropy_forward": {"": plain(engine.cross_entropy_forward, x, targets)},
        "cross_entropy_backward": {
            "": plain(engine.cross_entropy_backward, probabilities, targets, normal(N))
        },
        "linear_cross_entropy_losses": {
            "": plain(engine.linear_cross_entropy_losses, x, weight, vector, targets),
            "int8": in_int8(plain(engine.linear_cross_entropy_losses, x, weight, vector, targets)),
            "bfloat16": in_bfloat16(
                plain(engine.linear_cross_entropy_losses, x, weight, vector, targets)
            ),
        },
        "crf_forward": {"": plain(engine.crf_forward, *crf)},
        "crf_backward": {"": plain(engine.crf_backward, *crf, *alphas, normal(B))},
        "crf_decode": {"": plain(engine.crf_decode, *crf, -1)},
        "ctc_forward": {"": plain(engine.ctc_forward, *ctc)},
        "ctc_backward": {"": plain(engine.ctc_backward, *ctc, *alignments, normal(B))},
        "gather_rows": {
            "": plain(engine.gather_rows, x, ids),
            "int8": in_int8(plain(engine.gather_rows, x, ids)),
        },
        "sum_rows": {"": plain(engine.sum_rows, order, x[:40])},
        "cumsum": {
            "rows": plain(engine.cumsum, x, 1),
            "columns": plain(engine.cumsum, x[:, ::2], 0, reverse=True),
        },
        "take_along_axis": {"": plain(engine.take_along_axis, x, mask.astype(int), 0)},
        "add_along_axis": {"": plain(engine.add_along_axis, x, mask.astype(int), 0, 3)},
        "add_rows": {"": plain(engine.add_rows, x[:40], order, (7, 10, 130), 2)},
        "order_rows": {
            "all": plain(engine.order_rows, x, 130),
            "first": plain(engine.order_rows, x, 4, descending=True),
        },
        "dropout": {
            "": plain(engine.dropout, x, 0.5, 7),
            "shared": plain(engine.dropout, x, 0.5, 7, (1,)),
        },
        "batch_norm_forward": {
            "": plain(engine.batch_norm_forward, x, mask[:, 0], None, None, 0.1)
        },
        "batch_norm_backward": {
            "": plain(engine.batch_norm_backward, x, mask[:, 0], None, normal(130), normal(130), x)
        },
        "pack_graph": {"": plain(graph, weight, x[0])},
        "layer_norm_forward": {"": plain(engine.layer_norm_forward, x, None, None, 0.1)},
        "layer_norm_backward": {"": plain(engine.layer_norm_backward, x, None, means, factors, x)},
        "sample": {"": plain(engine.sample, x, rng.random(N), 0.7, 10, 0.9)},
        "recurrence_forward": {
            **{
                f"{name} {kind}": calls[kind]
                for name, calls in recurrences.items()
                for kind in ("forward", "saving")
            },
            **{f"{name} int8": in_int8(recurrences[name]["forward"]) for name in ("rows", "units")},
        },
        "recurrence_backward": {name: calls["backward"] for name, calls in recurrences.items()},
        "bidirectional_forward": {
            kind: recurrences["rows"][kind] for kind in ("both", "both saving")
        },
        "bidirectional_backward": {"": recurrences["rows"]["both backward"]},
        "pack_layers": {
            **{f"ids {name}": call for name, call in ids_stack.items()},
            **{f"rows {name}": call for name, call in stack_of_rows.items()},
            "ids int8": in_int8(ids_stack["generate"]),
            "rows int8": in_int8(stack_of_rows["packing"]),
            **{f"bfloat16 {name}": in_bfloat16(call) for name, call in ids_stack.items()},
        },
        "sgd_update": update(lambda p, d, v, **o: engine.sgd_update(p, d, v, **o), 2, **sgd),
        "adam_update": update(engine.adam_update, 3, **adam),
        "rmsprop_update": update(engine.rmsprop_update, 4, **rms),
        "adagrad_update": update(engine.adagrad_update, 2, **numbers, epsilon=1e-3),
        "average_update": {"": in_place(engine.average_update, many[:2], 3)},
        "scale": {"": in_place(engine.scale, many[:1], 0.5)},
        "global_norm": {"": plain(engine.global_norm, many)},
        "set_num_threads": {"": plain(engine.set_num_threads, 2)},
        "share_processors": {"": plain(engine.share_processors, 2)},
        "info": {"": plain(lambda: len(engine.info()))},
    }


def digest(arrays):
    """Of all bits."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def in_child(work):
    """What work() returns, a string, computed in a forked child; or why there is nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)  # nobody waits for ever
            os.write(writer, work().encode())
            os._exit(0)
        except BaseException:
            os.write(writer, traceback.format_exc()[-3000:].encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        text = f"the process ended: {signal.Signals(os.WTERMSIG(status)).name} {text}"
    return text, status == 0


def attempt(case, threads, expected, run, failures=None):
    """Run a call with run(function), then without; returns what happened: failed, or succeeded."""
    prepare, call = case

    def work():
        engine.set_num_threads(1)
        arguments = prepare()
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        before = digest(arrays)
        engine.set_num_threads(threads)
        try:
            found = run(lambda: call(*arguments))
            assert digest(found) == expected, "the result is another one"
            outcome = "succeeded"
        except MemoryError:
            outcome = "failed"
        except SystemError:  # NumPy forgets to set a MemoryError here and there
            if failures is None or failures.is_of_engine():
                raise
            outcome = "failed"
        if outcome == "failed":
            assert digest(arrays) == before, "a call without a result changed an array"
        arguments = prepare()
        assert digest(call(*arguments)) == expected, "the next result is another one"
        return outcome

    return work


class Failures:
    """Requests that fail, see tests/native/failing_allocator.c."""

    def __init__(self):
        library = ctypes.PyDLL(None)
        self.call = library.call_with_failures
        self.call.restype = ctypes.py_object
        self.call.argtypes = [ctypes.py_object, ctypes.c_long, ctypes.c_int]
        self.count = library.count_requests
        self.count.restype = ctypes.c_long
        library.failed_library.restype = ctypes.c_char_p
        self._library = library

    def is_of_engine(self):
        """Whether the request that failed first was made by the engine, or for it by C++."""
        library = os.path.basename(self._library.failed_library().decode())
        return library.startswith(("_native", "libstdc++", "libc++"))


def requests(case, threads, expected, every):
    """Let requests fail, each alone and with all that follow it; `every` 3 takes each third."""
    failures, done = Failures(), []
    for lasting in (0, 1):
        number = 1
        while True:
            work = attempt(
                case,
                threads,
                expected,
                lambda f, n=number, on=lasting: failures.call(f, n, on),
                failures,
            )

            def counted(work=work):
                return f"{work()} {failures.count()}"

            text, well = in_child(counted)
            if not well:
                return done, f"request {number}{' and on' if lasting else ''}: {text}"
            outcome, count = text.split()
            done.append(outcome)
            if int(count) < number:
                break
            number += every
    return done, ""


def limits(case, threads, expected, every):
    """Let there be little memory, in growing steps: what is free already is taken first."""
    done = []
    for step in range(0, 40, every):
        room = int(1024 * 1.5**step) if step else 0

        def limited(function, room=room):
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            taken = []
            try:
                resource.setrlimit(resource.RLIMIT_AS, (used, hard))
                for size in (1 << 20, 1 << 14, 1 << 10):
                    try:
                        while True:
                            taken.append(bytearray(size))
                    except MemoryError:
                        continue
                resource.setrlimit(resource.RLIMIT_AS, (used + room, hard))
                return function()
            finally:
                taken.clear()
                resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

        text, well = in_child(attempt(case, threads, expected, limited))
        if not well:
            return done, f"a limit of {room} bytes: {text}"
        done.append(text)
        if done.count("succeeded") == 2:
            break
    return done, ""


def main(mode, threads, every, wanted=""):
    report = {}
    for name, calls in table().items():
        for kind, case in calls.items():
            title = f"{name} {kind}".strip()
            if wanted and not title.startswith(wanted):
                continue
            prepare, call = case
            engine.set_num_threads(1)
            expected, well = in_child(lambda p=prepare, c=call: digest(c(*p())))
            assert well, (title, expected)
            ways = {"requests": requests, "limits": limits}
            done, failure = ways[mode](case, int(threads), expected, int(every))
            report[title] = {
                "failed": done.count("failed"),
                "succeeded": done.count("succeeded"),
                "failure": failure,
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
