"""Whole models, built from `anaphora.nn` layers."""

from anaphora.models.language_model import LanguageModel, load_language_model
from anaphora.models.session import LanguageModelSession

__all__ = ["LanguageModel", "LanguageModelSession", "load_language_model"]
