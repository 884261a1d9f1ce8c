"""What the server refuses, and why. Nothing here knows of gRPC; ``grpc/status.py`` maps it to codes.

::

    ServerError                   every error of this package
    ├── SettingsError             a setting is wrong, or missing
    ├── StartupError              the settings are right, and yet the server can't start
    ├── InvalidRequest            a field of the request is wrong
    ├── ModelNotFound             no such model, or no such version of it, is served
    ├── LoadFailed                a model can't be loaded as it is
    ├── LimitExceeded             over one of the server's limits of size
    │   └── QueueFull             too much is waiting already
    ├── Unavailable               the server is starting or draining
    └── DeadlineExpired           the caller's deadline passed before its work began
        └── DeadlineTooShort      it would have: too much is waiting

Beside them, the errors of `dropserve_models.errors` travel through unchanged. Messages are one line:
what was wrong, and what would be right.
"""

from __future__ import annotations

from typing import ClassVar


class ServerError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(ServerError):
    """A setting is wrong, or missing."""


class StartupError(ServerError):
    """The settings are right, and yet the server can't start: a port is taken, a key can't be read."""


class InvalidRequest(ServerError):
    """A field of the request is wrong.

    Attributes
    ----------
    field : str
        Its path in the request, e.g. ``"inputs.shape"`` or ``"monte_carlo.passes"``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ModelNotFound(ServerError):
    """No such model, or no such version of it, is served."""


class LoadFailed(ServerError):
    """A model can't be loaded as it is, or its repository not be read."""


class LimitExceeded(ServerError):
    """The request, or its answer, is over one of the server's limits of size.

    Attributes
    ----------
    reason : str
        Which limit, as the label of ``dropserve_rejected_total``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class QueueFull(LimitExceeded):
    """As much is in flight as the server holds; later there may be room.

    Attributes
    ----------
    retry_seconds : float
        After how long it is worth another try: what is in flight now is then expected to be done, and those
        who were refused before to have had their turn.
    """

    REASON: ClassVar[str] = "queue_full"

    def __init__(self, message: str, retry_seconds: float = 0.0) -> None:
        super().__init__(self.REASON, message)
        self.retry_seconds = retry_seconds


class Unavailable(ServerError):
    """The server is starting or draining."""


class DeadlineExpired(ServerError):
    """The caller's deadline passed before its work began, or before it was done, so the work was dropped."""


class DeadlineTooShort(DeadlineExpired):
    """With what is waiting already the caller's deadline can't be met, so the work was refused at once."""

    reason: ClassVar[str] = "deadline"
