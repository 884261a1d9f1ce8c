"""Whether an answer is still wanted."""

from __future__ import annotations

import threading


class Wanted:
    """True until it ends; threads that wait before they ask again need not wait for longer.

    Parameters
    ----------
    within : Wanted, optional
        What the answer is a part of: it is wanted no longer than that.
    """

    __slots__ = ("_changed", "_ended", "_within")

    def __init__(self, within: Wanted | None = None) -> None:
        self._within = within
        self._ended = False
        # One for all that belong together, so that none has to know its parts.
        self._changed: threading.Condition = threading.Condition() if within is None else within._changed

    def __bool__(self) -> bool:
        return not self._ended and (self._within is None or bool(self._within))

    def end(self) -> None:
        """From now on nobody wants it, nor any part of it. Idempotent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self, seconds)
