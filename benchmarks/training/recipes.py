"""Recipes of a much-read article on dropout, for sonar: 208 rows, 60 features, 2 classes."""

from __future__ import annotations

from typing import Any

SONAR: dict[str, Any] = {
    "hidden": (60, 30),
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "constant",
    "max_norm": 3.0,
    "batch_size": 16,
    "validation": 0.0,
}
"""With dropout: a large learning rate, high momentum, and a bound on the weights."""

DROPPED: dict[str, dict[str, Any]] = {
    "visible": {"input_drop": 0.2, "hidden_drop": 0.0},
    "hidden": {"hidden_drop": 0.2},
}
"""On the input, or on both hidden layers."""

BASELINE: dict[str, Any] = SONAR | {
    "learning_rate": 0.01,
    "momentum": 0.8,
    "max_norm": None,
    "hidden_drop": 0.0,
}
"""Without dropout."""

EPOCHS = 300
