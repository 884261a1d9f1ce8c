"""Certificates for the time of a test, and the files that servers and clients read them from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """A certificate chain and its key."""

    certificate: Path
    key: Path


class Authority:
    """An authority, and files in a folder of what it signs.

    Attributes
    ----------
    certificate : Path
        Its own certificate: whom to trust.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.certificate)

    def issue(self, *names: str, file: str = "server") -> Files:
        """Sign a certificate for these names; files that are there already are replaced."""
        issued = self._authority.issue_cert(*names)
        files = Files(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        files.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files.key)
        return files
