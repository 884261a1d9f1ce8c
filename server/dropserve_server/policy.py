"""Which versions of a model to serve, of those that there are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from dropserve_models.listing import is_version

_SPELLING = "latest:2 (or 2), all, or only:1,3"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions to serve.

    Attributes
    ----------
    latest : int or None
        The newest ones that load, so many of them. None: all.
    only : frozenset of int or None
        None but these. None: any.
    """

    latest: int | None = 1
    only: frozenset[int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy spelled ``latest:2`` or ``2``, ``all``, or ``only:1,3``.

        Raises
        ------
        ValueError
            It is spelled otherwise.
        """
        kind, colon, numbers = text.strip().partition(":")
        if not colon and is_version(kind):
            kind, numbers = "latest", kind
        versions = [number.strip() for number in numbers.split(",")]
        if kind == "latest" and len(versions) == 1 and is_version(versions[0]):
            return cls(latest=int(versions[0]))
        if kind == "only" and all(map(is_version, versions)):
            return cls(latest=None, only=frozenset(map(int, versions)))
        if kind == "all" and not colon:
            return cls(latest=None)
        raise ValueError(f"versions must be {_SPELLING}")

    def __str__(self) -> str:
        if self.only is not None:
            return "only:" + ",".join(map(str, sorted(self.only)))
        return "all" if self.latest is None else f"latest:{self.latest}"

    def wants(self, version: int, newer: int) -> bool:
        """Whether to serve `version` where `newer` ones of those wanted are served."""
        return (self.only is None or version in self.only) and (self.latest is None or newer < self.latest)


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What to serve of one model.

    Attributes
    ----------
    versions : VersionPolicy
    default : int or None
        The version that answers requests which name none; served in any case, and no other takes its
        place. None: the newest one that is served.
    """

    versions: VersionPolicy = VersionPolicy()
    default: int | None = None

    def default_of(self, served: Collection[int]) -> int | None:
        """The version, of those served, that answers requests which name none; None where there is none."""
        if self.default is not None:
            return self.default if self.default in served else None
        return max(served, default=None)
