"""What the parts of manifest.json have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of manifest.json: immutable, its types exact, its numbers finite."""

    # Unknown keys are ignored: a newer trainer may write more than this reader knows.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)
