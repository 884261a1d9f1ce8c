"""The index of the repository: every state a version can be in."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from dropserve_server.grpc.open_inference_models import write_index
from dropserve_server.metrics import Metrics
from dropserve_server.repository import Repository
from support.fake_model import FakeModel, fake_info

SECONDS = 10.0


def test_the_index_tells_every_state(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def load(folder: Path) -> FakeModel:
        name = folder.parent.name
        if name == "broken":
            raise ValueError("the secret of the file")
        if name == "later":
            entered.set()
            assert gate.wait(SECONDS)
        return FakeModel(fake_info(name, int(folder.name)))

    for version in ("broken/1", "good/1", "good/2", "later/1", "thereafter/1"):
        (tmp_path / version).mkdir(parents=True)
    repository = Repository(tmp_path, load, Metrics())

    def index(*, ready: bool = False, draining: bool = False) -> list[tuple[str, str, str, str]]:
        models = write_index(repository, lambda name: not draining, ready=ready).models
        return [(model.name, model.version, model.state, model.reason) for model in models]

    broken = ("broken", "1", "UNAVAILABLE", "it could not be loaded; the server's log says why")
    old, good = ("good", "1", "UNAVAILABLE", "unloaded"), ("good", "2", "READY", "")

    async def scenario() -> None:
        loading = asyncio.ensure_future(repository.load(1, lambda name, served: None))
        try:
            await asyncio.to_thread(entered.wait, SECONDS)
            while len(repository) < 1:
                await asyncio.sleep(0.001)
            later = ("later", "1", "LOADING", "")
            assert index() == [broken, old, good, later, ("thereafter", "", "LOADING", "")]
            assert index(ready=True) == [good]
        finally:
            gate.set()
            await loading
        others = [(name, "1", "READY", "") for name in ("later", "thereafter")]
        assert index() == [broken, old, good, *others]
        assert index(ready=True) == [good, *others]
        assert [state for *_, state, _ in index(draining=True)] == ["UNAVAILABLE"] * 5
        assert index(draining=True)[2][3] == "the server is draining"

    asyncio.run(asyncio.wait_for(scenario(), SECONDS))
