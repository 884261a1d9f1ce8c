"""Masks kept from one request to the next.

Drawing masks, and gathering the weights they leave, costs more than a small request's arithmetic. A seeded
request's masks are kept for the next request with that seed. A request without a seed takes masks from one
of `SLOTS` slots at random, which is drawn afresh after `USES` requests: two such requests have the same
masks with a probability of at most 1 / SLOTS, so their errors' correlation is at most that, and the mean of
many requests errs at most sqrt(USES) times as much as with masks of their own. Requests that are computed
together take theirs from different slots, and never have the same.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast

from dropserve_models.inference.masks import fresh_seed

SLOTS = 64
USES = 8


class MaskSet(Protocol):
    """All masks of a request."""

    @property
    def nbytes(self) -> int:
        """What they take in memory."""

    def forget(self) -> None:
        """Let go of what can be made again, also while others use it."""


S = TypeVar("S", bound=MaskSet)


class MaskBank:
    """A bounded store of mask sets. Thread-safe.

    Parameters
    ----------
    limit_bytes : int
        What the sets kept may take, once nobody uses them; the least recently used go first.
    slots : int
        For requests without a seed.
    """

    def __init__(self, limit_bytes: int, slots: int = SLOTS) -> None:
        self._limit = limit_bytes
        self._slots = slots
        self._lock = threading.Lock()
        self._sets: OrderedDict[Hashable, Any] = OrderedDict()
        self._uses: dict[Hashable, int] = {}
        self._sizes: dict[Hashable, int] = {}
        self._grown: set[Hashable] = set()  # perhaps, since they were measured
        self._random = random.Random(fresh_seed())

    def seeded(self, seed: int, kind: Hashable, draw: Callable[[int], S]) -> S:
        """The masks of a seed."""
        return self._get((seed, kind), lambda: draw(seed), None)

    def unseeded(self, kind: Hashable, draw: Callable[[int], S]) -> S:
        """Masks that few other requests have."""
        return self.unseeded_apart(kind, draw, 1)[0]

    def unseeded_apart(self, kind: Hashable, draw: Callable[[int], S], requests: int) -> list[S]:
        """Such masks for each of several requests, none with another's; new ones beyond its slots."""
        slots = self._random.sample(range(-self._slots, 0), min(requests, self._slots))
        kept = [self._get((slot, kind), lambda: draw(fresh_seed()), USES) for slot in slots]
        return kept + [draw(fresh_seed()) for _ in range(requests - self._slots)]

    def trim(self, used: MaskSet) -> None:
        """Keep to the limit: sets grow when they are used, by the weights that are gathered for them.

        A set that is not kept, because it was replaced or is too much, has nothing gathered afterwards.
        """
        with self._lock:
            key = next((key for key, kept in self._sets.items() if kept is used), None)
            if key is None:
                used.forget()
            else:
                self._grown.add(key)
            self._evict()

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            for kept in (self._sets, self._uses, self._sizes, self._grown):
                kept.clear()

    def _get(self, key: Hashable, draw: Callable[[], S], uses: int | None) -> S:
        with self._lock:
            found = self._sets.get(key)
            if found is not None and (uses is None or self._uses[key] < uses):
                self._sets.move_to_end(key)
                self._uses[key] += 1
                self._grown.add(key)
                return cast(S, found)
        made = draw()
        with self._lock:
            if (replaced := self._sets.get(key)) is not None:
                replaced.forget()
            self._sets[key] = made
            self._sets.move_to_end(key)
            self._uses[key] = 1
            self._sizes[key] = made.nbytes
            self._evict()
            if key in self._sets:
                self._grown.add(key)  # when it is first used, which is still to come
        return made

    def _evict(self) -> None:
        for key in self._grown:
            self._sizes[key] = self._sets[key].nbytes
        self._grown.clear()
        total = sum(self._sizes.values())
        while total > self._limit:
            key, masks = self._sets.popitem(last=False)
            masks.forget()  # who has paused holds the set, and nothing bounds how many do
            del self._uses[key]
            total -= self._sizes.pop(key)
