"""A repository folder whose versions load as fakes, or fail as told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from dropserve_server.metrics import Metrics
from dropserve_server.policy import ModelPolicy, VersionPolicy
from dropserve_server.repository import Repository
from support.fake_model import FakeModel, fake_info


class Shelf:
    """The folder, and what became of it.

    Attributes
    ----------
    errors : dict of Exception
        What loading "NAME/VERSION" raises.
    models : dict of FakeModel
        The last model that was loaded as "NAME/VERSION".
    loads : list of str
        What was loaded, or tried, in order.
    told : list of (name, served)
        What health was told.
    """

    def __init__(self, folder: Path, *versions: str) -> None:
        self.folder = folder
        self.errors: dict[str, Exception] = {}
        self.models: dict[str, FakeModel] = {}
        self.loads: list[str] = []
        self.told: list[tuple[str, bool | None]] = []
        self.metrics = Metrics()
        for version in versions:
            self.put(version)

    def put(self, version: str, content: str = "") -> None:
        """Write "NAME/VERSION", or something else into it."""
        (self.folder / version).mkdir(parents=True, exist_ok=True)
        (self.folder / version / "model.onnx").write_text(content)

    def remove(self, path: str) -> None:
        shutil.rmtree(self.folder / path)

    def load(self, folder: Path) -> FakeModel:
        key = f"{folder.parent.name}/{folder.name}"
        self.loads.append(key)
        if key in self.errors:
            raise self.errors[key]
        self.models[key] = FakeModel(fake_info(folder.parent.name, int(folder.name)))
        return self.models[key]

    def repository(
        self, versions: str = "1", models: Mapping[str, ModelPolicy] | None = None, *, warm_up: bool = False
    ) -> Repository:
        policy = VersionPolicy.parse(versions)
        return Repository(
            self.folder, self.load, self.metrics, versions=policy, models=models, warm_up=warm_up
        )

    def tell(self, name: str, served: bool | None) -> None:
        self.told.append((name, served))

    def open(self, versions: str = "1", *, warm_up: bool = False) -> Repository:
        """The repository, loaded."""
        repository = self.repository(versions, warm_up=warm_up)
        self.told.clear()
        asyncio.run(repository.load(2, self.tell))
        return repository

    def sample(self, family: str, model: str, **labels: str) -> float | None:
        """The value of ``dropserve_FAMILY`` for a model."""
        return self.metrics.registry.get_sample_value(f"dropserve_{family}", {"model": model, **labels})

    def served_versions(self, model: str) -> list[int]:
        """What dropserve_model_info says."""
        return sorted(
            int(sample.labels["version"])
            for family in self.metrics.registry.collect()
            if family.name == "dropserve_model_info"
            for sample in family.samples
            if sample.labels["model"] == model and sample.value == 1
        )


def served(repository: Repository) -> list[tuple[str, str, bool]]:
    """Name, version and whether it is the default one, of all that is served."""
    return [(model.name, model.version, is_default) for model, is_default in repository]
