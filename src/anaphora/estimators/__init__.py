"""Models with the methods of scikit-learn's and sktime's estimators (extra ``sklearn``)."""

from anaphora.estimators.forecaster import RecurrentForecaster
from anaphora.estimators.sequences import RecurrentClassifier, RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentForecaster", "RecurrentRegressor"]
