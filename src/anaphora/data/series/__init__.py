"""Series of measurements with their classes or targets, and standardization."""

from anaphora.data.series.reading import read_series
from anaphora.data.series.scaling import moments, standardized

__all__ = ["moments", "read_series", "standardized"]
