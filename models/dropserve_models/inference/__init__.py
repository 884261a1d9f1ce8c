"""Inference on an exported model: deterministic by ONNX Runtime, stochastic by the Monte Carlo engine.

The way of a Monte Carlo request: `graph` has split the ONNX graph at its first Dropout; ONNX Runtime
computes the prefix once (`deterministic`), or torch does (`opening`); `masks` draws which units each pass
drops; `engine` runs the suffix, read by `program`, over blocks of passes; `estimate` turns the passes into
mean and variance.
"""

import os

# ONNX Runtime's wheels keep usage records in the home folder and send them to its makers, unless this is
# set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
