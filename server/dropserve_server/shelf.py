"""One model of the repository: which of its versions are served, and how that follows its folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dropserve_models.errors import ArtifactError
from dropserve_models.listing import Signature, list_versions, signature
from dropserve_server.errors import LoadFailed
from dropserve_server.policy import ModelPolicy
from dropserve_server.served import ServedModel, State, VersionStatus

Load = Callable[[Path, Signature, bool], ServedModel]
"""Loads the version in a folder of that signature, warmed up or not; raises LoadFailed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A version that is served, and its folder as it was when it was loaded."""

    served: ServedModel
    signature: Signature


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version could not be loaded, and its folder as it was then."""

    reason: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Orders:
    """What an administrator said about a model, beyond its policy.

    Attributes
    ----------
    withheld : bool
        Serve nothing of it.
    without : frozenset of int
        Don't serve these versions.
    pinned : frozenset of int
        Serve these versions too.
    """

    withheld: bool = False
    without: frozenset[int] = frozenset()
    pinned: frozenset[int] = frozenset()

    def loading(self, version: int | None) -> Orders:
        """After an order to load a version (None: what the policy wants)."""
        if version is None:
            return Orders()
        return Orders(False, self.without - {version}, self.pinned | {version})

    def unloading(self, version: int | None) -> Orders:
        """After an order to unload a version (None: the model)."""
        if version is None:
            return Orders(withheld=True)
        return Orders(self.withheld, self.without | {version}, self.pinned - {version})


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is known of one model.

    Attributes
    ----------
    present : frozenset of int
        The versions in its folder.
    loaded : mapping of int to Standing
        The versions that are served.
    failed : mapping of int to Failure
        Those that could not be loaded, until their folders change.
    sighted : mapping of int to Signature
        Those whose folders had changed at the last look: perhaps they are still being written.
    trouble : str
        Why the model's folder could not be listed.
    """

    present: frozenset[int] = frozenset()
    loaded: Mapping[int, Standing] = field(default_factory=dict)
    failed: Mapping[int, Failure] = field(default_factory=dict)
    sighted: Mapping[int, Signature] = field(default_factory=dict)
    trouble: str = ""

    @property
    def monte_carlo_prepared(self) -> bool:
        """Whether Monte Carlo requests to a version served now find everything prepared."""
        return any(standing.served.model.monte_carlo_prepared for standing in self.loaded.values())

    def statuses(self, name: str, policy: ModelPolicy, being_loaded: Collection[int]) -> list[VersionStatus]:
        """How every version stands, ascending."""
        default = policy.default_of(self.loaded)
        statuses = []
        for version in sorted(self.present.union(self.loaded, being_loaded)):
            failure = self.failed.get(version)
            if version in self.loaded:
                state: State = "serving"
            elif version in being_loaded:
                state, failure = "loading", None
            else:
                state = "failed" if failure else "unloaded"
            reason = failure.reason if failure else ""
            statuses.append(VersionStatus(name, version, state, reason, version == default))
        return statuses


def renewed(
    shelf: Shelf,
    folder: Path,
    policy: ModelPolicy,
    orders: Orders,
    load: Load,
    *,
    warm_up: bool = False,
    patient: bool = False,
    retry: bool = False,
) -> Shelf:
    """The model as its folder, policy and orders want it now. Slow: lists, reads and loads.

    A version that can't be loaded takes no other one's place, and the last version that works is kept until
    another one does, or until the model has no versions any more.

    Parameters
    ----------
    warm_up : bool
        Whether to prepare Monte Carlo. Done in any case where a served version is prepared.
    patient : bool
        Whether to wait, with versions that changed or vanished since the last look, until they look the same
        twice: they may be on their way in.
    retry : bool
        Whether to try again what failed and has not changed since.

    Raises
    ------
    DeviceError
        The device asked for is not there.
    """
    try:
        present = frozenset(list_versions(folder))
    except ArtifactError as error:
        return replace(shelf, trouble=str(error))
    if orders.withheld:
        return Shelf(present)
    vanished = frozenset(shelf.loaded) & shelf.present - present if patient else frozenset()
    loaded: dict[int, Standing] = {}
    failed: dict[int, Failure] = {}
    sighted: dict[int, Signature] = {}
    warm_up = warm_up or shelf.monte_carlo_prepared
    newer = 0
    for version in sorted((present | vanished) - orders.without, reverse=True):
        wanted = policy.versions.wants(version, newer)
        if not wanted and version not in orders.pinned and version != policy.default:
            continue
        place = folder / str(version)
        now = signature(place)
        standing, failure = shelf.loaded.get(version), shelf.failed.get(version)
        if standing is None or standing.signature != now:
            if (
                patient
                and shelf.sighted.get(version) != now
                and (failure is None or failure.signature != now)
            ):
                sighted[version] = now
            elif retry or failure is None or failure.signature != now:
                try:
                    standing, failure = Standing(load(place, now, warm_up), now), None
                except LoadFailed as error:
                    failure = Failure(str(error), now)
            if failure is not None:
                failed[version] = failure
        if standing is not None:
            loaded[version] = standing
            newer += wanted
    if not loaded and present:
        loaded = {version: old for version, old in shelf.loaded.items() if version not in orders.without}
    return Shelf(present, loaded, failed, sighted)
