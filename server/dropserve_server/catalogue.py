"""The models being served, looked up by name and version; and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dropserve_models.listing import is_version
from dropserve_server.errors import InvalidRequest, ModelNotFound, Unavailable
from dropserve_server.served import ServedModel

LATEST = ""
_NAMES_LISTED = 10
_NAME_CHARACTERS = 128


class Catalogue:
    """The models being served. For the event loop's thread.

    Its maps are replaced, never changed: whoever looks something up gets all of what was there before a
    change or all of what is there after it, and keeps what it got for as long as it needs it.
    """

    def __init__(self) -> None:
        self._loading = True
        # By name, then by the version as requests spell it; LATEST is the default one.
        self._served: Mapping[str, Mapping[str, ServedModel]] = {}
        self._absent: Mapping[str, str] = {}

    def find(self, name: str, version: str = LATEST) -> ServedModel:
        """The model that answers requests for `name` and `version`.

        Raises
        ------
        ModelNotFound
            It is not served; the message names what is.
        InvalidRequest
            The version is not a positive integer.
        Unavailable
            It may be among the models that are still being loaded.
        """
        try:
            return self._served[name][version]
        except KeyError:
            raise self._missing(name, version) from None

    def __len__(self) -> int:
        """How many models are served."""
        return len(self._served)

    @property
    def loading(self) -> bool:
        """Whether models are still being loaded for the first time."""
        return self._loading

    def __iter__(self) -> Iterator[tuple[ServedModel, bool]]:
        """Every served version by name and version, ascending, and whether it is the default one."""
        for _, versions in sorted(self._served.items()):
            default = versions.get(LATEST)
            distinct = (served for version, served in versions.items() if version != LATEST)
            for served in sorted(distinct, key=lambda served: served.info.version):
                yield served, served is default

    def _show(self, name: str, versions: Mapping[int, ServedModel], default: int | None, absent: str) -> None:
        """Serve these versions of a model and no others; `absent`: why there are none, if there are none."""
        served, reasons = dict(self._served), dict(self._absent)
        served.pop(name, None)
        reasons.pop(name, None)
        if versions:
            spelled = {str(version): model for version, model in versions.items()}
            served[name] = spelled if default is None else {LATEST: versions[default]} | spelled
        elif absent:
            reasons[name] = absent
        self._served, self._absent = served, reasons

    def _missing(self, name: str, version: str) -> Exception:
        if version != LATEST and not is_version(version):
            return InvalidRequest(
                "version",
                f"version {shown(version)} is not a positive integer in decimal; empty means the default one",
            )
        if name in self._served:
            versions = sorted((v for v in self._served[name] if v != LATEST), key=int)
            what = f"version {version} here" if version != LATEST else "default version that is served"
            return ModelNotFound(f"model {shown(name)} has no {what}; served: {listed(versions)}")
        if self._loading:
            return Unavailable("the server is starting: models are being loaded; try again soon")
        if name in self._absent:
            return ModelNotFound(f"model {shown(name)} {self._absent[name]}")
        if not name:
            return InvalidRequest("model", f"no model is named; served: {listed(sorted(self._served))}")
        return ModelNotFound(f"there is no model {shown(name)}; served: {listed(sorted(self._served))}")


def listed(names: list[str]) -> str:
    """Names in a message: not too many, since a status message travels in a header, which has little room."""
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "") if names else "none"


def shown(text: str) -> str:
    """What a caller wrote, quoted and escaped, and not too long."""
    return ascii(text if len(text) <= _NAME_CHARACTERS else text[:_NAME_CHARACTERS] + "...")
