"""A process that serves: what is set before it does, its event loop, its exit status."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from prometheus_client import disable_created_metrics

from dropserve_models.inference.deterministic import available_cores
from dropserve_server.memory import keep_freed
from dropserve_server.scheduling import be_prompt

if TYPE_CHECKING:
    from dropserve_server.server import Ending
    from dropserve_server.settings import Settings

OK, FAILURE = 0, 1

_SWITCH_SECONDS = 0.001


def prepare(settings: Settings) -> Settings:
    """Set what libraries read when they are imported; the settings, with this process's share of the cores.

    Call it before gRPC is imported.
    """
    threads = settings.threads or max(1, available_cores() // settings.workers)
    # gRPC's core would write lines of its own between ours; what matters in them reaches us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # gRPC's newer engine polls in threads of its own, which hand what they read to the one that Python waits
    # for; without it that one reads by itself. A version of gRPC that knows the word no more ignores it.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    # A second series beside every one, which hardly anybody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    # For torch, imported at the first Monte Carlo request: it would count the host's cores, not our share of
    # them, and its threads would spin while they wait, which takes the cores from everything else here.
    at_once = 1 if settings.threads else settings.monte_carlo_workers
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads // at_once)))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed()
    # How long a thread keeps the interpreter from the others that wait for it. gRPC hands events to the event
    # loop from a thread of its own, and Monte Carlo's threads are there beside them.
    sys.setswitchinterval(_SWITCH_SECONDS)
    be_prompt()
    return settings.model_copy(update={"threads": threads})


def loop_factory() -> Any:
    """What makes the event loop: uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


def leave(ending: Ending) -> int:
    """The exit status; where threads are still at work, the process ends here."""
    status = FAILURE if ending.cut_off else OK
    if ending.computing:
        # A thread in native code can't be stopped, and the interpreter's own end would wait for it, or crash.
        logging.shutdown()
        os._exit(status)
    return status
