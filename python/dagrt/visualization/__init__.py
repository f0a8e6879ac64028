"""Seeing a model: its summary as a table, its graph as a picture."""

from __future__ import annotations

from dagrt.visualization.plot_model import model_to_dot, plot_model
from dagrt.visualization.summary import print_summary

__all__ = ["model_to_dot", "plot_model", "print_summary"]
