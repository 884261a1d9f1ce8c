"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A property that holds does not fail for being checked slowly, on a busy machine say.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
