"""Models: Functional, Sequential and subclassed ones."""

from __future__ import annotations

from dagrt.models.cloning import clone_model
from dagrt.models.functional import Functional
from dagrt.models.model import Model, model_from_json
from dagrt.models.sequential import Sequential
from dagrt.saving import load_model, save_model

__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]
