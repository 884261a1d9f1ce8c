from __future__ import annotations

import signal
import threading

import pytest

from dropserve_models.signals import Stopped, exit_status, stopping

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_taken_as_ctrl_c(number: signal.Signals) -> None:
    former = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(KeyboardInterrupt) as caught, stopping():
        signal.raise_signal(number)
    assert isinstance(caught.value, Stopped)
    assert exit_status(caught.value) == 128 + number
    assert [signal.getsignal(one) for one in SIGNALS] == former


def test_ctrl_c_itself() -> None:
    assert exit_status(KeyboardInterrupt()) == 130


def test_a_terminal_that_is_closed_may_say_so_twice() -> None:
    with stopping():
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        for _ in range(2):  # whoever is impatient may be so
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_stays_so() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_other_threads_leave_signals_alone() -> None:
    handlers: list[object] = []

    def look() -> None:
        with stopping():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
