"""The whole path over real HTTP: command line, judge, prompts, engine, server and back."""

from collections import Counter
from pathlib import Path

from pgenrm.chain import format
from pgenrm.runs import read_judgments
from pgenrm.seeding import derive_seed
from pgenrm.types import Outcome
from tests.cases import chain, comparison
from tests.server import Body, Reply, chat, choice, refuses, serve
from tests.test_cli import Terminal, pgenrm

__all__ = ["pgenrm"]  # the fixture

N = 40

FAULTS = [
    lambda: refuses(500),
    lambda: refuses(429, retry_after="0"),
    lambda: refuses(408),
    lambda: Reply(b"<html>busy</html>", headers={"content-type": "text/html"}),
    lambda: Reply(b'{"choices": [{"message": {"content": "PART', headers={}),
    lambda: Reply({"choices": []}),
    lambda: Reply(b"x" * 100, cut_at=10),
    lambda: Reply(b"", cut_at=0),
    lambda: chat(choice(None)),
    lambda: chat(choice("I would rather not say.")),
]


def rows() -> str:
    texts = [(f"Short {i}.", f"A much longer answer {i}.") for i in range(N)]
    return "".join(
        comparison(f"c{i}", responses=pair).model_dump_json() + "\n" for i, pair in enumerate(texts)
    )


def honest(body: Body, _: int) -> Reply:
    """Prefer the short answer, wherever it stands."""
    prompt = body["messages"][-1]["content"]
    short_first = prompt.rindex("Short") < prompt.rindex("A much longer")
    text = format(chain((8, 3) if short_first else (3, 8)))
    return chat(*[choice(text, i) for i in range(body.get("n") or 1)])


def faulty(body: Body, n_earlier: int) -> Reply:
    """Answer some prompts and treat others to a fault that stays with the prompt."""
    draw = derive_seed(body["messages"][-1]["content"]) % (2 * len(FAULTS))
    return FAULTS[draw]() if draw < len(FAULTS) else honest(body, n_earlier)


def test_a_server_that_works_is_judged_with(pgenrm: Terminal) -> None:
    with serve(honest) as server:
        done = pgenrm(
            *("judge", "-", "--json", "--model", "openai:m", "--base-url", server.base_url),
            stdin=rows(),
        )
    assert done.code == 0
    assert "accuracy 100.0%" in done.err
    assert len(server.calls) == 2 * N  # one call per presentation order


def test_whatever_a_server_does_nothing_is_lost_and_nothing_judged_twice(
    pgenrm: Terminal, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "in.jsonl").write_text(rows())
    with serve(faulty) as server:
        command = (
            *("judge", tmp_path / "in.jsonl", "--out", out, "-m", 2, "--max-retries", 1),
            *("--model", "openai:m", "--base-url", server.base_url),
        )
        done = pgenrm(*command)
        assert done.code == 0
        judgments = list(read_judgments(out))
        assert [j.id for j in judgments] == [f"c{i}" for i in range(N)]
        for judgment in judgments:
            assert len(judgment.chains) + len(judgment.failures) == 2
            assert all(f.failure.reason for f in judgment.failures)
            assert (judgment.outcome is Outcome.UNSCORED) == (not judgment.chains)
        outcomes = Counter(j.outcome for j in judgments)
        assert outcomes[Outcome.UNSCORED] > 0
        assert outcomes[Outcome.CORRECT] > 0

        server.script = honest
        server.calls.clear()
        assert pgenrm(*command, "--retry-unscored").code == 0
    assert len(server.calls) == 2 * outcomes[Outcome.UNSCORED]
    again = Counter(j.id for j in read_judgments(out))
    assert again == Counter(f"c{i}" for i in range(N))
    assert all(j.outcome is Outcome.CORRECT for j in read_judgments(out))


def test_a_server_that_is_down_leaves_reasons_and_a_run_that_can_be_repeated(
    pgenrm: Terminal, tmp_path: Path
) -> None:
    with serve(honest) as server:
        address = server.base_url
    out = tmp_path / "out.jsonl"
    done = pgenrm(
        *("judge", "-", "-m", 2, "--max-retries", 1, "--out", out),
        *("--model", "openai:m", "--base-url", address),
        stdin=rows(),
    )
    assert done.code == 1
    assert "no comparison could be scored" in done.err
    judgments = list(read_judgments(out))
    assert len(judgments) == N
    assert all(j.outcome is Outcome.UNSCORED and len(j.failures) == 2 for j in judgments)
