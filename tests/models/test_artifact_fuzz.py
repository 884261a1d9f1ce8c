"""Mutated artifacts, in a process of their own; ``make fuzz-artifacts`` tries 10,000."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
SECONDS = 120.0


def test_mutated_artifacts_are_served_right_or_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "support.artifact_fuzz", "--count", "250", "--seed", "2"],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    tried = done.stdout.splitlines()
    assert done.returncode == 0, f"artifact {tried[-1:]}: {done.stderr[-2000:]}"
    assert len(tried) == 250
    assert "'refused'" in done.stderr
    assert "'answered'" in done.stderr
