from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pgenrm.chain import format, parse
from pgenrm.engines.protocol import ChatRequest, Sampling
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.errors import EngineError
from pgenrm.evaluator import ChainRequest, ChainSet, Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.train.sec import (
    ChainSettings,
    Fate,
    Sampled,
    SecSet,
    ranking,
    sample_chains,
    shown_user,
    similarity,
)
from pgenrm.train.sec_rows import Place, surplus
from pgenrm.types import (
    Comparison,
    EvaluationChain,
    Failure,
    FailureKind,
    Message,
    Preference,
    User,
)
from tests.cases import QUERY, KnownEvaluator, chain, comparison, preference, shorter_is_better

ONLY_HISTORY = (SecSet.HISTORY_ONLY,)
STATING = User(
    id="u0",
    history=(
        Preference(
            context=QUERY,
            chosen="yes",
            rejected="no",
            chosen_score=87,
            choice_attributes={"irreverence": 73},
        ),
    ),
    criteria=("Be blunt.",),
    self_description="A welder.",
    demographics={"age": "62"},
)
STATEMENTS = ("Be blunt.", "A welder.", "62", "87", "irreverence", "73")


def sampled(
    comparisons: Sequence[Comparison],
    teachers: Evaluator | Sequence[Evaluator],
    settings: ChainSettings,
) -> list[Sampled]:
    if not isinstance(teachers, Sequence):
        teachers = [teachers] * len(settings.temperatures)
    return sample_chains(comparisons, teachers, settings)


def known(*scores: float) -> KnownEvaluator:
    return KnownEvaluator(lambda request, i: scores)


def failing(failure: Failure) -> KnownEvaluator:
    return KnownEvaluator(lambda request, i: failure)


# ---------------------------------------------------------------- what is kept

SCORES = st.lists(st.sampled_from([1.0, 3.0, 5.5, 9.0]), min_size=2, max_size=4)


@given(SCORES, st.data())
@hypothesis_settings(deadline=None)
def test_a_chain_is_kept_only_if_the_chosen_response_is_strictly_first(
    scores: list[float], data: st.DataObject
) -> None:
    chosen = data.draw(st.integers(0, len(scores) - 1))
    best_other = max(s for i, s in enumerate(scores) if i != chosen)
    expected = (
        Fate.KEPT
        if scores[chosen] > best_other
        else Fate.TIE
        if scores[chosen] == best_other
        else Fate.WRONG
    )
    assert ranking(chain(scores), chosen) is expected


@pytest.mark.parametrize(
    ("stated", "fate"),
    [
        ((8, 3), Fate.KEPT),
        ((7.95, 3), Fate.KEPT),
        ((9, 3), Fate.CONTRADICTORY),
        ((3, 8), Fate.WRONG),
        ((8, 8), Fate.TIE),
        ((None, None), Fate.KEPT),
    ],
)
def test_stated_totals_must_rank_right_as_well_and_follow_from_the_rubric(
    stated: tuple[float | None, ...], fate: Fate
) -> None:
    told = chain((8, 3)).model_copy(update={"stated_scores": stated})
    assert ranking(told, 0) is fate


def test_a_chain_without_a_breakdown_counts_by_its_totals() -> None:
    bare = EvaluationChain(preferences="P", stated_scores=(8, 3))
    assert ranking(bare, 0) is Fate.KEPT
    assert ranking(EvaluationChain(preferences="P", stated_scores=(8, None)), 0) is Fate.UNREADABLE


def test_every_failure_has_a_fate_and_none_is_a_rejection() -> None:
    fates = {}
    for kind in FailureKind:
        teacher = failing(Failure(kind=kind, reason=f"because of {kind}"))
        [one] = sampled([comparison()], teacher, ChainSettings(sets=ONLY_HISTORY))
        fates[kind] = one.found[0].tries[0][0]
        assert one.last_failure == f"because of {kind}"
        assert one.is_lost is (kind is FailureKind.REQUEST)
    assert fates == {
        FailureKind.REQUEST: Fate.LOST,
        FailureKind.FORMAT: Fate.UNREADABLE,
        FailureKind.TRUNCATED: Fate.UNREADABLE,
        FailureKind.TOO_LONG: Fate.TOO_LONG,
    }


def test_a_chain_whose_text_would_need_a_second_copy_of_itself_is_not_kept() -> None:
    class Odd(KnownEvaluator):
        def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
            [answer] = super().evaluate(requests)
            [sample] = answer.samples
            odd = chain((9, 1)).model_copy(update={"rationale": "I simply like it."})
            assert '"exact"' in format(odd)
            return [
                answer.model_copy(update={"samples": (sample.model_copy(update={"chain": odd}),)})
            ]

    [one] = sampled(
        [comparison()],
        Odd(shorter_is_better),
        ChainSettings(sets=ONLY_HISTORY, seed=_first_first()),
    )
    assert {fate for fates in one.found[0].tries for fate in fates} == {Fate.UNREADABLE}


def _first_first() -> int:
    """Return a seed that shows the responses of `comparison()` as they stand."""
    return next(
        seed
        for seed in range(20)
        if sampled(
            [comparison()],
            KnownEvaluator(shorter_is_better),
            ChainSettings(sets=ONLY_HISTORY, seed=seed),
        )[0]
        .found[0]
        .order
        == (0, 1)
    )


# ---------------------------------------------------------------- tries


def test_tries_go_on_at_rising_temperature_until_a_chain_is_right() -> None:
    def script(request: ChatRequest, i: int) -> str:
        is_right = request.sampling.temperature >= 1.1
        short_first = request.messages[-1].content.rindex("Short") < request.messages[
            -1
        ].content.rindex("A much longer")
        return format(chain((8, 3) if is_right is short_first else (3, 8)))

    engine = ScriptedEngine(script)
    settings = ChainSettings(sets=ONLY_HISTORY, temperatures=(0.8, 0.95, 1.1, 1.25))
    teachers = [
        LanguageModelEvaluator(engine, sampling=Sampling(temperature=t))
        for t in settings.temperatures
    ]
    [one] = sampled([comparison()], teachers, settings)
    [found] = one.found
    assert [r.sampling.temperature for r in engine.requests] == [0.8, 0.95, 1.1]
    assert len({r.seed for r in engine.requests}) == 3
    assert found.tries == ((Fate.WRONG,), (Fate.WRONG,), (Fate.KEPT,))
    assert [(k.attempt, k.temperature) for k in found.kept] == [(3, 1.1)]


def test_a_comparison_that_is_never_right_ends_after_the_last_try() -> None:
    teacher = known(5, 5)
    [one] = sampled([comparison()], teacher, ChainSettings(sets=ONLY_HISTORY))
    assert one.found[0].tries == ((Fate.TIE,),) * 4
    assert one.found[0].kept == ()
    assert one.found[0].prompt == ()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"temperatures": (1.0, 0.9)}, "must not fall"),
        ({"temperatures": ()}, "at least 1"),
        ({"n_chains": 0}, "greater than or equal to 1"),
        ({"sets": ("history_only", "history_only")}, "each set once"),
        ({"n_history": 2, "min_history": 3}, "at least as much"),
        ({"n_history": None, "min_history": 3}, "at least as much"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ChainSettings.model_validate(wrong)


def test_a_teacher_that_gives_another_number_of_chains_is_named() -> None:
    class Stingy(KnownEvaluator):
        def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
            return [ChainSet(samples=()) for _ in requests]

    with pytest.raises(EngineError, match="'c0': asked for 1 chains, it gave 0"):
        sampled([comparison()], Stingy(shorter_is_better), ChainSettings())


# ---------------------------------------------------------------- what the teacher sees


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 100))
@hypothesis_settings(deadline=None, max_examples=30)
def test_no_request_depends_on_the_label(a: int, b: int, seed: int) -> None:
    texts = ("one", "two two", "three three three", "four")
    settings = ChainSettings(seed=seed, n_chains=5, min_history=0)
    user = User(id="u", history=tuple(preference(i) for i in range(4)), criteria=("Be brief.",))
    asked = []
    for label in (a, b):
        teacher = known(5, 5, 5, 5)  # never right, so that every try is made
        sampled([comparison(responses=texts, label=label, user=user)], teacher, settings)
        asked.append(teacher.requests)
    assert asked[0] == asked[1]


def test_past_choices_that_tell_the_answer_are_not_shown() -> None:
    c = comparison(responses=("this", "that"), label=0)
    elsewhere = Preference(context="Another question", chosen="this", rejected="that")
    later = (*c.context, Message(role="assistant", content="this"), *elsewhere.context)
    telling = (
        Preference(context=QUERY, chosen="this", rejected="that"),
        Preference(context=QUERY, chosen="this", rejected="a third"),
        Preference(context=QUERY, chosen="a third", rejected="that"),
        Preference(context=later, chosen="yes", rejected="no"),
    )
    user = User(id="u", history=(preference(), *telling, elsewhere), criteria=("Be brief.",))
    c = c.model_copy(update={"user": user})
    for kind in SecSet:
        shown = shown_user(c, kind, ChainSettings(n_history=None))
        assert shown is not None
        assert shown.history == (preference(), elsewhere)
    [one] = sampled([c], known(5, 5), ChainSettings())
    assert one.n_telling == 4


def test_bare_history_shows_nothing_that_the_user_states() -> None:
    teacher = KnownEvaluator(shorter_is_better)
    [one] = sampled([comparison(user=STATING)], teacher, ChainSettings())
    stating, bare = one.found
    assert (stating.set, bare.set) == (SecSet.WITH_CRITERIA, SecSet.HISTORY_ONLY)
    assert (stating.prompt_version, bare.prompt_version) == ("chain_signals@2", "chain_history@1")
    with_all, with_bare = (" ".join(m.content for m in f.prompt) for f in (stating, bare))
    for statement in STATEMENTS:
        assert statement in with_all
        assert statement not in with_bare
    asked = {bool(request.user.criteria): request.user for request in teacher.requests}
    assert asked[True].demographics == STATING.demographics
    assert asked[False] == User(
        id="u0", history=(Preference(context=QUERY, chosen="yes", rejected="no"),)
    )


@pytest.mark.parametrize("stated", [{}, {"demographics": {"age": "62"}}])
def test_who_does_not_say_what_he_looks_for_has_no_chain_with_criteria(
    stated: dict[str, dict[str, str]],
) -> None:
    c = comparison(user=User(id="u", **stated))
    [one] = sampled([c], KnownEvaluator(shorter_is_better), ChainSettings())
    assert [found.set for found in one.found] == [SecSet.HISTORY_ONLY]


def test_the_number_of_past_choices_spreads_evenly_where_asked() -> None:
    user = User(id="u", history=tuple(preference(i) for i in range(6)))
    settings = ChainSettings(n_history=4, min_history=0)
    drawn = Counter(
        len(shown.history)
        for i in range(500)
        if (shown := shown_user(comparison(f"c{i}", user=user), SecSet.HISTORY_ONLY, settings))
    )
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    assert min(drawn.values()) > 70


# ---------------------------------------------------------------- orders and several chains


@pytest.mark.parametrize("n_responses", [2, 3, 4])
@pytest.mark.parametrize("n_chains", [1, 3, 8])
def test_chains_spread_over_the_orders_and_rank_the_chosen_first_as_shown(
    n_responses: int, n_chains: int
) -> None:
    texts = [f"{'word ' * 10 * i}end {i}" for i in range(n_responses)]
    settings = ChainSettings(sets=ONLY_HISTORY, n_chains=n_chains, max_similarity=1)
    teacher = KnownEvaluator(
        lambda request, i: [
            9 - len(r) / 40 - request.seed % 97 / 200 - i / 100 for r in request.responses
        ]
    )
    [one] = sampled([comparison(responses=texts, label=0)], teacher, settings)
    n_by_order = [found.n_wanted for found in one.found]
    assert sum(n_by_order) == n_chains
    assert max(n_by_order) - min(n_by_order) <= 1
    assert len({found.order.index(0) for found in one.found}) == min(n_chains, n_responses)
    for found in one.found:
        assert len(found.kept) == found.n_wanted
        prompt = found.prompt[-1].content
        places = [prompt.index(f"end {i}") for i in found.order]
        assert places == sorted(places)
        for kept in found.kept:
            scores = parse(kept.text, n_responses).scores()
            assert max(scores, key=lambda s: s or 0) == scores[found.order.index(0)]


def test_a_teacher_that_repeats_itself_gives_one_chain_whatever_the_order() -> None:
    teacher = KnownEvaluator(
        lambda request, i: [9 if r == "Short answer." else 2 for r in request.responses]
    )
    [one] = sampled([comparison()], teacher, ChainSettings(sets=ONLY_HISTORY, n_chains=6))
    first, second = one.found
    assert first.order != second.order
    assert first.tries == ((Fate.KEPT, *(Fate.DUPLICATE,) * 2), *((Fate.DUPLICATE,) * 2,) * 3)
    assert second.tries == ((Fate.DUPLICATE,) * 3,) * 4
    assert (len(first.kept), len(second.kept)) == (1, 0)


@given(st.text("ab \n", max_size=40), st.text("ab \n", max_size=40))
def test_similarity_is_symmetric_and_one_for_equal_words(a: str, b: str) -> None:
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert similarity(a, " ".join(a.split())) == 1


def test_one_changed_word_in_a_long_text_is_a_near_duplicate_and_another_text_is_not() -> None:
    words = [f"w{i}" for i in range(100)]
    changed = [*words[:50], "other", *words[51:]]
    assert similarity(" ".join(words), " ".join(changed)) > 0.9
    assert similarity(" ".join(words), " ".join(words[::-1])) == 0


# ---------------------------------------------------------------- balance

PLACES = st.lists(
    st.builds(
        lambda n, label, turn, i: Place(
            SecSet.HISTORY_ONLY, f"c{i}", label % n, tuple((p + turn) % n for p in range(n)), 0
        ),
        st.integers(2, 4),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 10_000),
    ),
    max_size=60,
    unique=True,
)


@given(PLACES)
@hypothesis_settings(deadline=None)
def test_what_stays_is_in_balance_and_nothing_leaves_without_need(places: list[Place]) -> None:
    leaving = surplus(places, 0)
    staying = [place for place in places if place not in leaving]
    for n in (2, 3, 4):
        positions = Counter(p.position for p in staying if len(p.order) == n)
        assert len({positions[p] for p in range(n)}) == 1
    orders = Counter(p.order for p in staying if len(p.order) == 2)
    assert orders[0, 1] == orders[1, 0]
    for n in (3, 4):
        before = Counter(p.position for p in places if len(p.order) == n)
        after = Counter(p.position for p in staying if len(p.order) == n)
        assert after[0] == min(before[p] for p in range(n))


def test_which_rows_leave_does_not_depend_on_their_sequence() -> None:
    places = [Place(SecSet.HISTORY_ONLY, f"c{i}", 0, (0, 1), 0) for i in range(9)]
    places.append(Place(SecSet.HISTORY_ONLY, "c9", 0, (1, 0), 0))
    assert surplus(places, 0) == surplus(places[::-1], 0)
    assert len(surplus(places, 0)) == 8
    assert surplus(places, 0) != surplus(places, 1)
