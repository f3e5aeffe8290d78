"""Judgments as they come: to a file, to stdout, or onto the screen; stopped cleanly by Ctrl-C."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator

import typer
from rich.console import Console

from pgenrm.accuracy import Tally
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import show_judgment, show_tally
from pgenrm.errors import EngineError
from pgenrm.judge import PGenRM
from pgenrm.runs import Run, count
from pgenrm.types import Comparison, Judgment


def judge_all(
    rm: PGenRM,
    comparisons: Iterable[Comparison],
    run: Run | None,
    n_total: int | None,
    *,
    as_json: bool,
    n_shown: int,
) -> None:
    """Judge what is left, with a progress bar, and sum up.

    Args:
        rm: the judge.
        comparisons: those that have no judgment yet.
        run: file to append to; None shows or prints only.
        n_total: for the bar, where it is known.
        as_json: one judgment a line on stdout.
        n_shown: judgments to show in full, where neither `run` nor `as_json` takes them.

    Raises:
        EngineError: no comparison at all could be scored.
    """
    stdout, stderr = Console(), Console(stderr=True)
    tally = run.tally if run else Tally()
    n_left_to_show = 0 if as_json or run else n_shown
    reason = "it was judged in an earlier run; --retry-unscored judges it again"
    was_stopped = False

    def stop(*_: object) -> None:
        nonlocal was_stopped
        was_stopped = True
        raise KeyboardInterrupt

    on_interrupt = signal.signal(signal.SIGINT, stop)
    try:
        with counting_progress(stderr) as progress:
            task = progress.add_task("judging", total=n_total, completed=tally.n_judged)
            for comparison, judgment in _paired(rm, comparisons):
                if was_stopped:  # libraries may swallow the exception
                    raise KeyboardInterrupt
                if run:
                    run.add(judgment)
                else:
                    count(tally, judgment)
                if judgment.failures:
                    reason = judgment.failures[0].failure.reason
                elif not judgment.chains:
                    reason = "no own chains were wanted, and there is nobody else to ask"
                if as_json:
                    typer.echo(judgment.model_dump_json())
                if n_left_to_show:
                    show_judgment(stdout, comparison, judgment)
                    n_left_to_show -= 1
                progress.advance(task)
    except BaseException:
        if not was_stopped:  # else it is a KeyboardInterrupt, as such or wrapped by a library
            raise
        how = (
            "run the same command again to continue" if run else "use --out to be able to continue"
        )
        stderr.print(f"stopped after {tally.n_judged} judgments; {how}", style="yellow")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    show_tally(stderr, tally, rm.stages[-1] if rm.stopping else None)
    if tally.n_judged and tally.n_unscored == tally.n_judged:
        raise EngineError(f"no comparison could be scored; the last one: {reason}")


def _paired(rm: PGenRM, comparisons: Iterable[Comparison]) -> Iterator[tuple[Comparison, Judgment]]:
    """Yield every comparison with its judgment; only those under way are held."""
    under_way: deque[Comparison] = deque()

    def noted() -> Iterator[Comparison]:
        for comparison in comparisons:
            under_way.append(comparison)
            yield comparison

    for judgment in rm.judge(noted()):
        yield under_way.popleft(), judgment
