"""The request that rows which are computed apart are parts of."""

from __future__ import annotations

from dataclasses import dataclass, field

from dropserve_models.inference.masks import fresh_seed


@dataclass(frozen=True, slots=True)
class Whole:
    """A request without a seed that is computed in parts.

    All of them have the same masks, so that each pass is one function of the features. Unlike a seed's,
    these masks promise nothing beyond this request: they are drawn, and its parts are computed, however
    it is quickest for so many rows.

    Attributes
    ----------
    rows : int
        Of all parts.
    seed : int
        What its masks are drawn from.
    """

    rows: int
    seed: int = field(default_factory=fresh_seed)
