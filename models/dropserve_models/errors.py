"""What can go wrong with a model, its data and its artifact.

::

    ModelsError                   every error of this package
    ├── DataError                 the data file can't be trained on or predicted from
    ├── ConfigError               a training option is out of range or contradicts another
    ├── CheckpointError           a checkpoint can't be read or written, or is of another run
    ├── ArtifactError             the artifact on disk is missing, damaged or refused
    ├── ExportError               the exported graph does not compute what was trained
    ├── ReportError               the report of an evaluation can't be written
    ├── InputError                features or options handed to ``predict`` are wrong
    ├── MemoryLimitError          the answer would need more memory than the model may use
    ├── DeviceError               the device asked for is not there
    ├── MonteCarloUnavailable     the model can't be run with dropout on
    └── IntervalUnavailable       the model is not calibrated

Messages are one line: what was wrong, and what would be right. They know nothing of any transport.
"""

from __future__ import annotations

_SHOWN_CHARACTERS = 64


class ModelsError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(ModelsError):
    """The data can't be used: a missing file or column, a value that is not a finite number, too few rows."""


class ConfigError(ModelsError):
    """A training option is out of range or contradicts another."""


class CheckpointError(ModelsError):
    """A checkpoint of a training run is damaged, of another run, or can't be written."""


class ArtifactError(ModelsError):
    """An artifact is missing, damaged, or refused (wrong digest, external data outside its folder)."""


class ExportError(ModelsError):
    """The exported graph is not valid, or answers differently from the network that was trained."""


class ReportError(ModelsError):
    """The report of an evaluation can't be written."""


class InputError(ModelsError):
    """Features or options of a prediction are wrong.

    Attributes
    ----------
    field : str
        Which of them, as the caller knows it: ``"inputs"``, or an attribute of `MonteCarloOptions`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class MemoryLimitError(ModelsError):
    """The answer alone (returned samples, say) would exceed the memory a request may use."""


class DeviceError(ModelsError):
    """The device asked for is not available."""


class MonteCarloUnavailable(ModelsError):
    """The model has no dropout, or an operation after it that the Monte Carlo engine can't run."""


class IntervalUnavailable(ModelsError):
    """An interval was asked of a model that is not calibrated, or not in this mode."""


def shortened(text: str) -> str:
    """`text` as a message can show it, whoever chose it: quoted, escaped, and not long."""
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
