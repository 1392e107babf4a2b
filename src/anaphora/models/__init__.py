"""Whole models, built from `anaphora.nn` layers."""

from anaphora.models.language_model import LanguageModel, load_language_model

__all__ = ["LanguageModel", "load_language_model"]
