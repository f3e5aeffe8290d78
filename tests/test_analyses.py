"""Analyses of users by a known evaluator and by the attribute evaluator; users out of rows."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.scenario import Scenario
from pgenrm.errors import InputError
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.history import draw_history, draw_pairs, gather_users
from pgenrm.prototypes.analyses import LostAnalysis, analyses_of
from pgenrm.types import Failure, FailureKind, Message, Preference, User
from tests.cases import chain, comparison, preference

QUERIES = {
    Scenario.EMOTIONAL: "I feel so lonely since we broke up.",
    Scenario.TECHNICAL: "How do I compile C++ code?",
    Scenario.CREATIVE: "Write me a poem.",
    Scenario.FACTUAL: "What is the capital of Peru?",
}
LOST = Failure(kind=FailureKind.REQUEST, reason="server down")


def choice(scenario: Scenario, i: int = 0) -> Preference:
    context = (Message(role="user", content=QUERIES[scenario]),)
    return Preference(context=context, chosen=f"liked {i}", rejected=f"not so much {i}")


def user(id: str, *scenarios: Scenario) -> User:
    return User(id=id, history=tuple(choice(s, i) for i, s in enumerate(scenarios)))


PEOPLE = [
    user("ana", Scenario.EMOTIONAL, Scenario.TECHNICAL, Scenario.EMOTIONAL),
    user("ben"),
    user("cem", Scenario.CREATIVE),
    user("dia", *[Scenario.TECHNICAL] * 6),
]


class Namer:
    """Writes what it was shown as the preferences of a chain."""

    name = "namer"
    workers = 1

    def __init__(self) -> None:
        self.batches: list[Sequence[ChainRequest]] = []

    def evaluate(self, requests: Sequence[ChainRequest]) -> list[ChainSet]:
        self.batches.append(requests)
        return [ChainSet(samples=(self._sample(request),)) for request in requests]

    def _sample(self, request: ChainRequest) -> ChainSample:
        shown = [pair.chosen for pair in request.user.history]
        text = f"{request.user.id} {shown} {request.responses} {request.seed}"
        return ChainSample(chain=chain([1, 2]).model_copy(update={"preferences": text}))

    def close(self) -> None:
        pass


# ---------------------------------------------------------------- analyses


def test_every_user_is_analysed_once_in_every_scenario_of_his_in_order() -> None:
    found = [(a.user_id, a.scenario) for a in analyses_of(PEOPLE, Namer())]
    assert found == [
        ("ana", "emotional"),
        ("ana", "technical"),
        ("cem", "creative"),
        ("dia", "technical"),
    ]


def test_an_analysis_is_about_the_latest_choice_and_sees_the_whole_history() -> None:
    writer = Namer()
    list(analyses_of(PEOPLE[:1], writer))
    emotional, technical = writer.batches[0]
    assert set(emotional.responses) == {"liked 2", "not so much 2"}
    assert set(technical.responses) == {"liked 1", "not so much 1"}
    assert emotional.context == PEOPLE[0].history[2].context
    assert emotional.user == technical.user == PEOPLE[0]
    assert emotional.n == 1


def test_the_chosen_response_stands_first_about_half_of_the_time() -> None:
    writer = Namer()
    crowd = [user(f"u{i}", Scenario.CREATIVE) for i in range(400)]
    list(analyses_of(crowd, writer))
    n_first = sum(request.responses[0] == "liked 0" for b in writer.batches for request in b)
    assert 150 < n_first < 250


@given(st.integers(1, 5), st.permutations(PEOPLE), st.integers(0, 3), st.integers(0, 9))
def test_an_analysis_depends_on_its_user_and_the_seed_alone(
    batch_size: int, people: list[User], n_history: int, seed: int
) -> None:
    """So the work can be split, reordered and taken up again."""
    whole = analyses_of(people, Namer(), n_history=n_history, seed=seed, batch_size=batch_size)
    alone = [
        analysis
        for person in people
        for analysis in analyses_of([person], Namer(), n_history=n_history, seed=seed)
    ]
    assert list(whole) == alone


def test_another_seed_draws_other_choices_and_samples() -> None:
    drawn = [list(analyses_of(PEOPLE, Namer(), n_history=3, seed=seed)) for seed in (0, 1)]
    assert all(a.text != b.text for a, b in zip(*drawn, strict=True))


def test_a_user_is_shown_with_the_same_drawn_choices_in_all_his_scenarios() -> None:
    writer = Namer()
    list(analyses_of(PEOPLE[:1], writer, n_history=2))
    assert [r.user for r in writer.batches[0]] == [draw_pairs(PEOPLE[0], 2, 0, "ana")] * 2


def test_nothing_is_asked_before_it_is_needed() -> None:
    writer = Namer()
    found = analyses_of(PEOPLE, writer, batch_size=1)
    next(found)
    assert len(writer.batches) == 1


def test_progress_counts_users() -> None:
    calls: list[tuple[int, int]] = []
    list(analyses_of(PEOPLE, Namer(), batch_size=3, progress=lambda *n: calls.append(n)))
    assert calls == [(3, 4), (4, 4)]


def test_lost_and_empty_chains_are_reported_and_never_a_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unlucky(Namer):
        def _sample(self, request: ChainRequest) -> ChainSample | Failure:  # type: ignore[override]
            if request.user.id == "ana":
                return LOST
            if request.user.id == "cem":
                return ChainSample(chain=chain([1, 2]).model_copy(update={"preferences": " "}))
            return super()._sample(request)

    reports: list[LostAnalysis] = []
    found = list(analyses_of(PEOPLE, Unlucky(), on_failure=reports.append))
    assert [a.user_id for a in found] == ["dia"]
    assert [(r.user_id, r.scenario, r.failure.kind) for r in reports] == [
        ("ana", "emotional", FailureKind.REQUEST),
        ("ana", "technical", FailureKind.REQUEST),
        ("cem", "creative", FailureKind.FORMAT),
    ]
    assert "3 of 4 analyses could not be had, the first of user ana (emotional): server" in (
        caplog.text
    )


def test_the_attribute_evaluator_says_different_things_of_different_users() -> None:
    context = (Message(role="user", content=QUERIES[Scenario.FACTUAL]),)
    short, long = "It is.", "It is. " * 60

    def lover_of(text: str, other: str) -> User:
        pair = Preference(context=context, chosen=text, rejected=other)
        return User(id=text[:9], history=(pair,) * 5)

    terse, wordy = analyses_of([lover_of(short, long), lover_of(long, short)], AttributeEvaluator())
    assert terse.text != wordy.text


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": -1}, {"n_history": -1}])
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="use at least 1"):
        next(analyses_of(PEOPLE, Namer(), **settings))  # type: ignore[arg-type]


# ---------------------------------------------------------------- users out of rows


def test_users_come_once_each_in_order_of_first_appearance() -> None:
    rows = [comparison(id=f"c{i}", user=User(id=u)) for i, u in enumerate("bacab")]
    assert [u.id for u in gather_users(rows)] == ["b", "a", "c"]


def test_a_history_is_all_distinct_choices_in_the_order_of_the_rows() -> None:
    rows = [
        comparison(id="1", responses=["x", "y"], label=1, user=User(id="u")),
        comparison(id="2", user=User(id="u", history=(preference(0), preference(1))), label=None),
        comparison(id="3", user=User(id="u", history=(preference(1), preference(2))), label=None),
        comparison(id="4", responses=["y", "x"], label=0, user=User(id="u")),
    ]
    (gathered,) = gather_users(rows)
    assert [p.chosen for p in gathered.history] == ["y", "chosen 0", "chosen 1", "chosen 2"]
    assert gathered.history[0].rejected == "x"


def test_a_labelled_row_of_many_counts_as_chosen_over_each_other() -> None:
    row = comparison(responses=["a", "b", "c", "b"], label=1, user=User(id="u"))
    (gathered,) = gather_users([row])
    assert [(p.chosen, p.rejected) for p in gathered.history] == [("b", "a"), ("b", "c")]


def test_of_two_records_of_a_choice_the_rated_one_is_kept() -> None:
    rated = preference(0).model_copy(update={"chosen_score": 80.0, "rejected_score": 20.0})
    bare = comparison(user=User(id="u", history=(preference(0), preference(1))), label=None)
    full = comparison(user=User(id="u", history=(rated,)), label=None)
    for rows in ([bare, full], [full, bare]):
        (gathered,) = gather_users(rows)
        assert gathered.history == (rated, preference(1))


def test_each_statement_comes_from_the_first_row_that_has_it() -> None:
    users = [
        User(id="u"),
        User(id="u", criteria=("be brief",), demographics={"age": "30"}),
        User(id="u", criteria=("be long",), self_description="I am."),
    ]
    rows = [comparison(id=str(i), user=u, label=None) for i, u in enumerate(users)]
    assert gather_users(rows) == [
        User(
            id="u",
            criteria=("be brief",),
            self_description="I am.",
            demographics={"age": "30"},
        )
    ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans()), max_size=12))
def test_gathering_again_what_was_gathered_changes_nothing(
    rows: list[tuple[str, int, bool]],
) -> None:
    comparisons = [
        comparison(
            id=str(i),
            responses=[f"r{k}", f"r{k + 1}"],
            label=0 if is_labelled else None,
            user=User(id=u, history=(preference(k),)),
        )
        for i, (u, k, is_labelled) in enumerate(rows)
    ]
    once = gather_users(comparisons)
    again = gather_users([comparison(id=u.id, user=u, label=None) for u in once])
    assert again == once
    assert all(len(set(map(repr, u.history))) == len(u.history) for u in once)


def test_drawing_for_a_comparison_is_drawing_for_its_user_by_the_comparisons_id() -> None:
    many = comparison(id="c9", user=User(id="u", history=tuple(map(preference, range(9)))))
    drawn = draw_history(many, 3, seed=5)
    assert drawn.user == draw_pairs(many.user, 3, 5, "c9")
    assert all(p in drawn.user.history for p in draw_pairs(many.user, 2, 5, "c9").history)
    assert draw_pairs(many.user, 9, 5, "c9") is many.user
