"""A signal stops the work, whatever the work makes of exceptions, and its number is in the exit code."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from diffprobe.signals import STOPPING, Stopped, check, inside, stoppable


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def wait(seconds: float) -> None:
    """In small pieces, as work is."""
    for _ in range(round(seconds * 100)):
        time.sleep(0.01)


def stopped(work: Callable[[], object]) -> Stopped:
    """The exception that ended the work."""

    def run() -> None:
        with stoppable():
            work()

    with pytest.raises(Stopped) as caught:
        run()
    return caught.value


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)])
def test_a_signal_unwinds_what_is_open_and_has_its_exit_code(number, code):
    closed = []

    def work() -> None:
        try:
            send(number)
            wait(5)
        finally:
            closed.append(inside())

    error = stopped(work)
    assert closed == [True]
    assert (error.code, error.line) == (code, f"stopped by {signal.Signals(number).name}")
    assert not inside()


def test_sigusr2_is_left_to_the_program_that_listens_for_it():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append(True))  # as submitit does, which requeues the job
    try:
        with stoppable():
            send(signal.SIGUSR2)
            wait(0.05)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [True]


def test_ctrl_c_is_one_word():
    assert (Stopped(signal.SIGINT).code, Stopped(signal.SIGINT).line) == (130, "interrupted")
    assert Stopped(signal.SIGINT, "go on").line == "interrupted; go on"


@pytest.mark.parametrize("after", [lambda: wait(5), check, lambda: None], ids=["works on", "looks", "ends"])
def test_code_that_takes_all_exceptions_does_not_lose_the_signal(after):
    def deaf() -> None:
        try:
            send(signal.SIGTERM)
            wait(5)
        except BaseException:
            return

    start = time.perf_counter()
    assert stopped(lambda: (deaf(), after())).code == 143
    assert time.perf_counter() - start < 2


def test_a_signal_in_a_destructor_which_drops_exceptions_is_neither_lost_nor_told_as_a_traceback(capfd):
    class Dropped:
        def __del__(self) -> None:
            send(signal.SIGTERM)
            wait(0.05)

    def work() -> None:
        Dropped()
        wait(5)

    start = time.perf_counter()
    assert stopped(work).code == 143
    assert time.perf_counter() - start < 2
    assert capfd.readouterr().err == ""


def test_an_exit_in_a_destructor_by_the_handler_of_another_program_is_not_told_as_a_traceback(capfd):
    class Dropped:
        def __del__(self) -> None:
            send(signal.SIGUSR2)
            wait(0.05)

    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))  # as submitit's ends
    try:
        with stoppable():
            Dropped()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert capfd.readouterr().err == ""


def test_closing_what_is_open_is_not_interrupted_by_the_reminder_or_an_echo():
    closed = []

    def work() -> None:
        try:
            send(signal.SIGTERM)
            wait(5)
        finally:
            wait(0.4)
            send(signal.SIGTERM)  # SLURM and a parent may both send one
            wait(0.4)
            closed.append(True)

    stopped(work)
    assert closed == [True]


def test_an_error_that_comes_of_being_stopped_is_not_told_as_an_error():
    def closes_badly() -> None:
        try:
            send(signal.SIGTERM)
            wait(5)
        finally:
            raise RuntimeError("connection closed by peer")

    assert stopped(closes_badly).code == 143
    with pytest.raises(RuntimeError, match="own fault"), stoppable():
        raise RuntimeError("own fault")


def test_afterwards_signals_go_where_they_went_before():
    numbers = (*STOPPING, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        with stoppable():
            pass
        assert inside()
    assert [signal.getsignal(number) for number in numbers] == before


def test_it_travels_from_a_worker_to_the_process_that_waits_for_it():
    sent = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM, "go on")))
    assert (sent.code, sent.line) == (143, "stopped by SIGTERM; go on")


@pytest.mark.parametrize(("ignored", "code", "told"), [(False, 130, "interrupted\n"), (True, 0, "")])
def test_before_any_work_a_word_is_enough_and_a_signal_that_the_shell_ignores_stays_ignored(ignored, code, told):
    work = "import os, signal; from diffprobe.signals import listen; listen(); os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run(
        [sys.executable, "-c", work],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, told)
