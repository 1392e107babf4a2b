"""Prints the header of a network in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anaphora.interop.network import Network

_HEADER = """\
/* {title}

   weights {weight_bytes} bytes, state {state_bytes}, stack of a step about {stack_bytes}
   {products} multiply-adds a step

   No function allocates memory, keeps anything outside of the state, or calls a library: each
   thread may run a state of its own. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

{sizes}

#ifdef __cplusplus
extern "C" {{
#endif

typedef struct {{
{members}
}} {name}_state;

/* Begin a sequence. */
void {name}_reset({name}_state *state);

{step}
{signature};

{more}#ifdef __cplusplus
}}
#endif

#endif
"""

_OF_FEATURES = """\
/* Read the next step x[{upper}_INPUT_SIZE]{units}.
   y[{upper}_OUTPUT_SIZE] are the {answers} after it. */"""

_OF_TOKENS = """\
/* Read the next token. y[{upper}_OUTPUT_SIZE] are the {answers} after it.
   Returns 0; or -1 if there is no such token, and nothing has changed. */"""

_SAMPLER = """\
/* The probability of each token; both arrays have {upper}_OUTPUT_SIZE numbers. */
void {name}_softmax(const float *scores, float *probabilities);

/* Sample the next token by a uniform number, 0 <= uniform < 1: of the top_k most likely (0: of
   all), and of these from the most likely whose shares reach top_p (1: all), at a temperature (0:
   the most likely token). Returns -1 if a score is NaN or infinite; -infinity excludes a token.
   Stack: about {order_bytes} bytes. */
int32_t {name}_sample(const float *scores, double temperature, int32_t top_k, double top_p,
    double uniform);

"""

_LABELS = """\
/* The names of the outputs, in UTF-8. */
extern const char *const {name}_labels[{count}];

"""


def header_of(
    network: Network,
    name: str,
    title: str,
    signature: str,
    members: Sequence[str],
    figures: Mapping[str, int],
) -> str:
    """The header of a network.

    Args:
        network: The network.
        name: The beginning of all names.
        title: A line about the model.
        signature: Of the function of a step.
        members: The members of the state, a line each.
        figures: Of the model, by the names of `Source`.
    """
    upper = name.upper()
    answers = {"scores": "scores", "softmax": "probabilities", "sigmoid": "probabilities"}
    answer = answers[network.answer]
    if network.kind == "sequence regressor":
        answer = "numbers"
    if network.output is None:
        answer = "outputs of the last layer"
    units = ", in the units of the training data" if network.moments is not None else ""
    inputs = ("INPUT", network.input_size)
    if network.table is not None:
        inputs = ("VOCABULARY", len(network.table))
    more = ""
    if network.kind == "language model":
        more += _SAMPLER.format(upper=upper, name=name, order_bytes=4 * network.output_size + 256)
    if network.labels:
        more += _LABELS.format(name=name, count=len(network.labels))
    step = _OF_FEATURES if network.table is None else _OF_TOKENS
    return _HEADER.format(
        title=title,
        upper=upper,
        name=name,
        sizes="\n".join(
            f"#define {upper}_{size}_SIZE {value}"
            for size, value in (inputs, ("OUTPUT", network.output_size))
        ),
        members="\n".join(members),
        step=step.format(upper=upper, units=units, answers=answer),
        signature=signature,
        more=more,
        **figures,
    )
