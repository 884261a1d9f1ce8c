"""What of its repository a server serves: asked and ordered at its admin port."""

from __future__ import annotations

from dropserve_client import dialogue
from dropserve_client.client import Client
from dropserve_client.types import VersionStatus


class Administrator:
    """Gives a server orders; see ``dropserve/v1/administration.proto`` for what they mean.

    Parameters
    ----------
    client : Client
        Connected to the server's admin port.

    Examples
    --------
    >>> with Client("localhost:8003") as client:
    ...     Administrator(client).load_model("breast_cancer")

    Every method returns versions by model name and then by version, and raises `DropserveError`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def list_versions(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """Every version in the repository, served or not."""
        return self._client._run(dialogue.list_versions(), timeout)

    def load_model(
        self, model: str, *, version: str | int = "", timeout: float | None = None
    ) -> list[VersionStatus]:
        """Serve one version too; without one, what the version policy wants. The model's versions then.

        Raises
        ------
        NotFoundError
            The repository has no such model or version.
        DropserveError
            A version could not be loaded. What was served before still is.
        """
        return self._client._run(dialogue.load_model(model, version), timeout)

    def unload_model(
        self, model: str, *, version: str | int = "", timeout: float | None = None
    ) -> list[VersionStatus]:
        """Serve one version, or without one the whole model, no longer. The model's versions then.

        Raises
        ------
        NotFoundError
            The repository has no such model or version.
        """
        return self._client._run(dialogue.unload_model(model, version), timeout)

    def reload_repository(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """Look through the repository now, and try again what had failed; all versions then."""
        return self._client._run(dialogue.reload_repository(), timeout)
