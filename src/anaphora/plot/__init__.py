"""Visualization: plots of states, gates, gradients, attention, embeddings and training runs.

Every function returns a `Picture`, whose data are available at once and whose figure is rendered on
demand. Only the figure needs matplotlib (extra ``plot``); no display is needed. `graph` returns
Graphviz text; `cell`, `unrolled` and `batching` return a `Diagram`, an SVG that needs no extra.
"""

from anaphora.plot.batching import batching
from anaphora.plot.cells import cell
from anaphora.plot.diagram import Diagram
from anaphora.plot.embeddings import analogy, embeddings, nearest, principal_components
from anaphora.plot.gradients import gradient_norms
from anaphora.plot.graph import Graph, graph
from anaphora.plot.language_model import Reading, read, token_embeddings, tokens
from anaphora.plot.learning_rates import learning_rates
from anaphora.plot.picture import Picture
from anaphora.plot.runs import losses
from anaphora.plot.sequences import attention, gates, states, text, units, values
from anaphora.plot.unrolled import unrolled

__all__ = [
    "Diagram",
    "Graph",
    "Picture",
    "Reading",
    "analogy",
    "attention",
    "batching",
    "cell",
    "embeddings",
    "gates",
    "gradient_norms",
    "graph",
    "learning_rates",
    "losses",
    "nearest",
    "principal_components",
    "read",
    "states",
    "text",
    "token_embeddings",
    "tokens",
    "units",
    "unrolled",
    "values",
]
