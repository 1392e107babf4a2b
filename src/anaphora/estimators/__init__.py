"""Estimators with the interfaces of scikit-learn and sktime (extra ``sklearn``)."""

from anaphora.estimators.forecaster import RecurrentForecaster
from anaphora.estimators.sequences import RecurrentClassifier, RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentForecaster", "RecurrentRegressor"]
