"""Evaluation: how good a model's predictions are, and what their uncertainty is worth."""
