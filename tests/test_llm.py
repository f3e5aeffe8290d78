"""The language-model evaluator: every sample ends as a chain or as a failure with its reason."""

import re
from collections.abc import Sequence

import pytest

from pgenrm.chain import format, parse
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling, StructuredOutput
from pgenrm.engines.scripted import Script, ScriptedEngine
from pgenrm.errors import EngineError, InputError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet, Evaluator
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator, tail_schema
from pgenrm.prompts import Template
from pgenrm.types import Arithmetic, Failure, FailureKind, FinishReason, Message, User
from tests.cases import QUERY, chain, comparison, preference

USER = User(id="u0", history=(preference(0), preference(1)))
CHAIN = chain((8, 3))
DOWN = Failure(kind=FailureKind.REQUEST, reason="server down")


def ask(
    n: int = 1,
    user: User = USER,
    context: tuple[Message, ...] = QUERY,
    responses: tuple[str, ...] = ("Short.", "A longer one."),
    seed: int = 0,
) -> ChainRequest:
    return ChainRequest(id="c0", user=user, context=context, responses=responses, n=n, seed=seed)


def evaluate(script: Script, *requests: ChainRequest, **options: object) -> list[ChainSet]:
    return LanguageModelEvaluator(ScriptedEngine(script), **options).evaluate(requests)  # type: ignore[arg-type]


def test_readable_completions_become_chains() -> None:
    (result,) = evaluate([format(CHAIN)] * 2, ask(n=2))
    assert [s.chain.scores() for s in result.samples if isinstance(s, ChainSample)] == [(8, 3)] * 2
    assert result.prompt_version == Template.load("chain_history").version
    assert result.cuts == ()
    assert result.n_prompt_tokens > 300
    assert all(s.n_tokens > 10 for s in result.samples)


@pytest.mark.parametrize("name", ["chain_history", "chain_signals"])
def test_the_form_that_the_instructions_show_is_one_that_the_parser_reads_whole(name: str) -> None:
    instructions = Template.load(name).render(USER, QUERY, ("a", "b"))[0].content
    shown = parse(instructions, n_responses=2)
    assert shown.scores() == (7.05, 6.15)
    assert shown.arithmetic is Arithmetic.CONSISTENT
    assert [criterion.weight for criterion in shown.criteria] == [40, 35, 25]


def test_an_unreadable_completion_is_a_format_failure_with_its_text() -> None:
    (result,) = evaluate(["I would rather not."], ask())
    (failure,) = result.samples
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.FORMAT
    assert failure.reason
    assert (failure.text, failure.n_tokens) == ("I would rather not.", 5)


def test_an_unreadable_completion_at_its_token_limit_is_truncated() -> None:
    (result,) = evaluate([format(CHAIN)], ask(), sampling=Sampling(max_tokens=8))
    (failure,) = result.samples
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TRUNCATED
    assert failure.n_tokens == 8


def test_a_readable_chain_that_hit_the_limit_is_kept_and_says_so() -> None:
    cut = Completion(text=format(CHAIN), finish_reason=FinishReason.LENGTH, n_tokens=99)
    (result,) = evaluate([cut], ask())
    (sample,) = result.samples
    assert isinstance(sample, ChainSample)
    assert (sample.finish_reason, sample.n_tokens) == (FinishReason.LENGTH, 99)


def test_failures_of_the_engine_pass_through() -> None:
    (result,) = evaluate([DOWN, format(CHAIN)], ask(n=2))
    assert result.samples[0] == DOWN
    assert isinstance(result.samples[1], ChainSample)


def test_an_engine_that_cannot_be_used_stops_the_run() -> None:
    with pytest.raises(EngineError, match="used up"):
        evaluate([], ask())


def test_a_prompt_that_cannot_fit_is_lost_alone_and_with_the_numbers() -> None:
    engine = ScriptedEngine(lambda *_: format(CHAIN), context_window=2000)
    evaluator = LanguageModelEvaluator(engine, sampling=Sampling(max_tokens=500))
    long = ask(n=3, responses=("word " * 5000, "short"))
    before, lost, after = evaluator.evaluate([ask(), long, ask(n=2)])
    assert [len(r.samples) for r in (before, lost, after)] == [1, 3, 2]
    assert all(isinstance(s, ChainSample) for s in before.samples + after.samples)
    for failure in lost.samples:
        assert isinstance(failure, Failure)
        assert failure.kind is FailureKind.TOO_LONG
        assert "1500 are free" in failure.reason
    assert lost.prompt_version == before.prompt_version
    assert len(engine.requests) == 2


def test_cuts_are_reported() -> None:
    engine = ScriptedEngine([format(CHAIN)], context_window=1500)
    evaluator = LanguageModelEvaluator(engine, sampling=Sampling(max_tokens=500))
    user = User(id="u", history=tuple(preference(i) for i in range(100)))
    (result,) = evaluator.evaluate([ask(user=user)])
    assert any(cut.startswith("history: oldest pairs left out") for cut in result.cuts)
    assert result.n_prompt_tokens <= 1000


def test_max_tokens_that_fill_the_window_are_refused() -> None:
    engine = ScriptedEngine([], context_window=2048)
    with pytest.raises(InputError, match=r"max_tokens is 2048.*window of 2048.*lower max_tokens"):
        LanguageModelEvaluator(engine, sampling=Sampling(max_tokens=2048))


def test_the_engine_is_asked_once_per_request_for_all_its_samples() -> None:
    engine = ScriptedEngine(lambda *_: format(CHAIN))
    sampling = Sampling(temperature=0.7)
    LanguageModelEvaluator(engine, sampling=sampling).evaluate([ask(n=3, seed=7), ask(seed=8)])
    assert [(r.n, r.seed) for r in engine.requests] == [(3, 7), (1, 8)]
    assert [r.sampling for r in engine.requests] == [sampling] * 2
    assert {r.prompt_version for r in engine.requests} == {Template.load("chain_history").version}


def test_a_user_with_signals_gets_the_prompt_that_shows_them() -> None:
    user = USER.model_copy(update={"criteria": ("Numbers, please.",)})
    engine = ScriptedEngine(lambda *_: format(CHAIN))
    with_signals, without = LanguageModelEvaluator(engine).evaluate([ask(user=user), ask()])
    assert with_signals.prompt_version == Template.load("chain_signals").version
    assert without.prompt_version == Template.load("chain_history").version
    assert "Numbers, please." in engine.requests[0].messages[1].content


def test_a_template_given_is_used_for_every_user() -> None:
    template = Template("mine", "{% set version = 1 %}{% block user %}{{ query }}{% endblock %}")
    engine = ScriptedEngine([format(CHAIN)])
    (result,) = LanguageModelEvaluator(engine, template).evaluate([ask()])
    assert result.prompt_version == "mine@1"
    assert engine.requests[0].messages == QUERY


def test_structured_output_gets_the_schema_of_the_tail() -> None:
    engine = ScriptedEngine([format(CHAIN)])
    sampling = Sampling(structured=StructuredOutput.STRUCTURAL_TAG)
    LanguageModelEvaluator(engine, sampling=sampling).evaluate([ask()])
    assert engine.requests[0].sampling.json_schema == tail_schema(2)
    scores = tail_schema(3)["properties"]["better_response"]
    assert scores["required"] == ["response_1", "response_2", "response_3"]
    assert list(tail_schema(1)["properties"]) == ["rationale", "better_response"]


@pytest.mark.parametrize("n_responses", [1, 3])
def test_other_numbers_of_responses_are_judged_too(n_responses: int) -> None:
    scores = tuple(float(9 - i) for i in range(n_responses))
    request = ask(responses=tuple(f"response {i}" for i in range(n_responses)))
    (result,) = evaluate([format(chain(scores))], request)
    (sample,) = result.samples
    assert isinstance(sample, ChainSample)
    assert sample.chain.scores() == scores


def short_is_better(request: ChatRequest, i: int) -> str:
    """Judge as the prompt shows the responses, whatever their order."""
    shown = re.findall(r"<response_\d>\n(.*?)\n</response_\d>", request.messages[-1].content)
    return format(chain([10 - len(text) / 10 for text in shown]))


def test_a_judge_maps_the_scores_of_both_orders_back_to_the_responses() -> None:
    evaluator = LanguageModelEvaluator(ScriptedEngine(short_is_better))
    judge = PGenRM(evaluator, m=4)
    rows = [comparison(responses=("A long one it is.", "Short.")), comparison(id="c1")]
    first, second = judge.judge(rows)
    assert (first.choice, second.choice) == (1, 0)
    assert {judged.order for judged in first.chains} == {(0, 1), (1, 0)}
    assert first.scores == (8.3, 9.4)
    assert first.prompt_version == Template.load("chain_history").version


class UncountingEngine(ScriptedEngine):
    """Reports no token counts, as some servers do."""

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        answers = super().complete(requests)
        return [answer.model_copy(update={"n_prompt_tokens": None}) for answer in answers]


def test_tokens_that_the_engine_does_not_report_are_counted_with_its_rule() -> None:
    (counted,) = LanguageModelEvaluator(ScriptedEngine([format(CHAIN)])).evaluate([ask()])
    (estimated,) = LanguageModelEvaluator(UncountingEngine([format(CHAIN)])).evaluate([ask()])
    assert estimated.n_prompt_tokens == counted.n_prompt_tokens > 0


def test_name_and_workers_are_those_of_the_engine() -> None:
    evaluator: Evaluator = LanguageModelEvaluator(ScriptedEngine([], model="m", workers=3))
    assert (evaluator.name, evaluator.workers) == ("scripted:m", 3)
    evaluator.close()
    evaluator.close()
