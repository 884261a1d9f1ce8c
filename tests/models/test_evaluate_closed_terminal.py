from __future__ import annotations

import signal
from pathlib import Path

from dropserve_models.training.trainer import train
from support.terminal import closed_amid
from support.training import job

# Its line stands on the terminal when the signal comes, so that there is something to clear.
PROGRAM = """
import sys, time
from dropserve_models import terminal
from dropserve_models.evaluation import evaluator
terminal._QUIET_SECONDS = 0.0
def evaluate(*_, on_rows, **__):
    on_rows(5)
    print("here", file=sys.stderr, flush=True)
    time.sleep(30)
evaluator.evaluate = evaluate
from dropserve_client.cli.main import main
sys.exit(main())
"""


def test_a_terminal_that_is_closed_ends_an_evaluation_by_its_signal(tmp_path: Path) -> None:
    folder = train(job(tmp_path / "repository")).folder
    report = tmp_path / "report.json"
    arguments = ["evaluate", str(folder), "--data", "sklearn:iris", "--json", str(report)]
    # The second SIGHUP that may come may end it where it is by then; shells call both 129.
    assert closed_amid(PROGRAM, arguments, timeout=60.0) in (128 + signal.SIGHUP, -signal.SIGHUP)
    assert not report.exists()
