"""Bearer tokens: who may do what.

A token file has one line for each token: a name, a role and the token's SHA-256, in hexadecimal::

    # name          role     hash
    web-shop        predict  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    release-robot   admin    sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

A fast hash is the right one here: tokens are 32 random bytes, which nobody finds by trying, however fast the
hash. The slow ones are for passwords, and would cost every call what they cost an attacker.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, get_args

from dropserve_server.errors import SettingsError

Role: TypeAlias = Literal["predict", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who has a token, and what it allows: admin allows what predict does, and more.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the token.
    """

    name: str
    role: Role
    digest: bytes

    def may(self, role: Role) -> bool:
        """Whether this bearer may do what takes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def line(self) -> str:
        """The bearer's line of a token file."""
        return f"{self.name} {self.role} sha256:{self.digest.hex()}"


class Tokens:
    """The tokens of a file."""

    def __init__(self, bearers: Iterable[Bearer]) -> None:
        self._bearers = tuple(bearers)

    def bearer_of(self, token: str) -> Bearer | None:
        """Who has this token. All are compared, each in constant time, so that no timing tells of one."""
        digest = sha256(token.encode(errors="replace")).digest()
        found = None
        for bearer in self._bearers:
            if hmac.compare_digest(bearer.digest, digest):
                found = bearer
        return found


def read_tokens(path: Path) -> Tokens:
    """Read a token file.

    Raises
    ------
    SettingsError
        The file can't be read, is empty, or a line is wrong. What a line holds is never in the message: it
        may be a token that somebody forgot to hash.
    """
    bearers = _read(path)
    if not bearers:
        # Half of a file being written may be nothing at all.
        raise SettingsError(f"the token file {path} has no tokens; dropserve token makes one")
    return Tokens(bearers.values())


def add_token(path: Path, name: str, role: Role) -> str:
    """Make a token, and append its line to a token file, which is made if there is none.

    Returns
    -------
    str
        The token. Only its hash is kept.

    Raises
    ------
    SettingsError
        The name can't be one, or is taken; or the file is broken, or can't be written.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"the name is {name!r}; it must be up to 64 letters, digits, '.', '_' and '-', the first of them "
            "a letter or digit"
        )
    if path.exists() and name in _read(path):
        raise SettingsError(
            f"the token file {path} has a token named {name}: remove its line, or choose another"
        )
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    line = Bearer(name, role, sha256(token.encode()).digest()).line()
    try:
        with open(path, "a+b", opener=_private) as file:
            # In one write, so that a server never reads half of it.
            file.write(f"{_line_break(file)}{line}\n".encode())
    except OSError as error:
        raise SettingsError(f"can't write the token file {path}: {error.strerror}") from error
    return token


def _read(path: Path) -> dict[str, Bearer]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"can't read the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the token file {path} is not text") from error
    bearers: dict[str, Bearer] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        bearer = _bearer(words)
        if bearer is None:
            raise SettingsError(
                f"line {number} of the token file {path} is not 'NAME predict|admin sha256:HEX'; "
                "dropserve token makes such lines"
            )
        if bearer.name in bearers:
            raise SettingsError(f"line {number} of the token file {path} uses a name a second time")
        bearers[bearer.name] = bearer
    return bearers


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _line_break(file: BinaryIO) -> str:
    """What must come before a line more: nothing, unless the last line was left unfinished."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"


def _bearer(words: list[str]) -> Bearer | None:
    if len(words) != 3:
        return None
    name, role, hashed = words
    digest = _HASH.fullmatch(hashed)
    if not _NAME.fullmatch(name) or digest is None:
        return None
    for known in ROLES:
        if role == known:
            return Bearer(name, known, bytes.fromhex(digest[1]))
    return None
