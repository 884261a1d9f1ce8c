"""A version of a model that is served, and what is told about one, served or not."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from dropserve_models.columns import accepting
from dropserve_models.inference.whole import Whole
from dropserve_models.prediction import FloatArray, ModelInfo, MonteCarloOptions, Prediction
from dropserve_server.costs import ModelCosts
from dropserve_server.metrics import ModelMetrics

State = Literal["loading", "serving", "failed", "unloaded"]


class ServableModel(Protocol):
    """What the server asks of a model; `dropserve_models.Model` is one."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    @property
    def monte_carlo_unavailable(self) -> str | None:
        """Why Monte Carlo requests are refused, if they are."""

    @property
    def monte_carlo_prepared(self) -> bool:
        """Whether the first Monte Carlo request is as fast as the next ones."""

    def prepare_monte_carlo(self) -> None:
        """Make the first Monte Carlo request as fast as the next ones."""

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        """Predict; any thread may call it at any time."""

    def steps(
        self, features: FloatArray, monte_carlo: MonteCarloOptions, whole: Whole | None = None
    ) -> Iterator[Prediction | None]:
        """Predict likewise, pausing (None) between passes; any thread may take a step, the last predicts."""

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """What Monte Carlo requests must have in common to be computed together; None: they can't be."""

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Predict several such requests' rows; an answer that is not finite is the caller's to find."""

    def check_interval(self, coverage: float, *, monte_carlo: bool) -> None:
        """Refuse an interval that answers in this mode can't have."""

    def add_interval(self, prediction: Prediction, coverage: float) -> Prediction:
        """The prediction with its interval, or its prediction set."""


class ServedModel:
    """One version of one model, ready to answer."""

    __slots__ = (
        "__weakref__",
        "accepts_missing",
        "costs",
        "features",
        "info",
        "metrics",
        "model",
        "name",
        "on_cpu",
        "outputs",
        "version",
    )

    def __init__(self, model: ServableModel, metrics: ModelMetrics) -> None:
        self.model = model
        self.metrics = metrics
        self.costs = ModelCosts()
        self.info = model.info
        self.name = model.info.name
        self.version = str(model.info.version)
        self.on_cpu = model.info.provider == "CPUExecutionProvider"
        self.features = len(model.info.feature_names)
        self.accepts_missing = accepting(model.info.columns)
        self.outputs = len(model.info.output_names)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of one model in the repository, and how it stands with it.

    Attributes
    ----------
    name, version : str, int
    state : {"loading", "serving", "failed", "unloaded"}
        unloaded: it is there, and not served because nobody asked for it, or somebody asked not to.
    reason : str
        Why it failed; of a serving one, why what is in its folder now is not what is served. Else empty.
    is_default : bool
        Whether it answers requests that name no version.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    is_default: bool = False
