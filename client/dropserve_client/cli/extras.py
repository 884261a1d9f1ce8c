"""Which packages of an extra of this distribution are not installed."""

from __future__ import annotations

import re
from importlib import metadata


def missing_packages(extra: str) -> list[str]:
    """Names of the extra's requirements that are not there.

    Requirements for some platforms only are not looked at: the others suffice to tell whether the
    extra is installed.
    """
    pattern = re.compile(r"([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['\"]" + re.escape(extra) + r"['\"]\s*$")
    found = (pattern.match(line) for line in metadata.requires("dropserve") or ())
    return [match[1] for match in found if match and not _is_installed(match[1])]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
