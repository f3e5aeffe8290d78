"""The attribute evaluator: what a chain holds, what moves it and what does not."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.measure import ATTRIBUTES, N_ATTRIBUTES, measure, measured
from pgenrm.attributes.model import AttributeModel, evidence
from pgenrm.attributes.render import FORM_ONLY, Renderer, percentages
from pgenrm.attributes.scenario import Scenario, classify
from pgenrm.chain import format as format_chain
from pgenrm.chain import parse
from pgenrm.evaluator import ChainRequest, ChainSample, ChainSet
from pgenrm.judge import PGenRM
from pgenrm.sim.world import World
from pgenrm.types import Arithmetic, Comparison, EvaluationChain, Message, Preference, User

SHORT = "Use a spoon."
LONG = "You could take a spoon from the drawer and then stir slowly, round and round. " * 8
QUERIES = {
    Scenario.TECHNICAL: "How do I compile a Python program?",
    Scenario.CREATIVE: "Write a poem about rain.",
    Scenario.EMOTIONAL: "I feel lonely and sad today.",
    Scenario.FACTUAL: "What is the capital of Peru?",
    Scenario.OPINION: "Should I rent or buy? What is your opinion?",
    Scenario.CASUAL: "hey, how are you",
}
TEXTS = (
    "",
    SHORT,
    LONG,
    "# Plan\n\n- one\n- two\n\n```\ncode\n```",
    "I am so sorry, dear friend! 😊 Shall I stay with you?",
    "Perhaps. It might depend; consult a professional, please note.",
    "In 2019, 40 percent agreed, according to one study, for example.",
    "Öğrenci 学生 студент \u2028 1. x",
)

texts = st.sampled_from(TEXTS) | st.text(max_size=80)
users = st.builds(
    lambda pairs, criteria: User(
        id="u",
        history=tuple(Preference(context=query, chosen=a, rejected=b) for query, a, b in pairs),
        criteria=criteria,
    ),
    st.lists(st.tuples(st.sampled_from(list(QUERIES.values())), texts, texts), max_size=4),
    st.lists(st.sampled_from(["short please", "no emojis", "I like lists"]), max_size=2),
)


def request(
    responses: Sequence[str],
    user: User | None = None,
    query: str = QUERIES[Scenario.TECHNICAL],
    n: int = 2,
    id: str = "c",
    seed: int = 0,
) -> ChainRequest:
    return ChainRequest(
        id=id,
        user=user or User(id="u"),
        context=(Message(role="user", content=query),),
        responses=tuple(responses),
        n=n,
        seed=seed,
    )


requests = st.builds(
    request,
    st.lists(texts, min_size=1, max_size=4),
    users,
    st.sampled_from(list(QUERIES.values())),
    n=st.integers(0, 4),
    id=st.sampled_from("abc"),
    seed=st.integers(0, 9),
)

evaluator = AttributeEvaluator()


def chains(chain_set: ChainSet) -> list[EvaluationChain]:
    assert all(isinstance(sample, ChainSample) for sample in chain_set.samples)
    return [sample.chain for sample in chain_set.samples if isinstance(sample, ChainSample)]


def chooser(chosen: str, rejected: str, queries: Sequence[str]) -> User:
    return User(
        id="u",
        history=tuple(Preference(context=q, chosen=chosen, rejected=rejected) for q in queries),
    )


def choice(user: User, responses: Sequence[str], query: str, m: int = 32) -> int | None:
    comparison = Comparison(id="c", user=user, context=query, responses=responses)
    return PGenRM(evaluator, m=m).judge_one(comparison).choice


# ---------------------------------------------------------------- what a chain holds


@given(requests)
def test_every_request_gets_n_complete_chains_that_say_what_they_judge(
    asked: ChainRequest,
) -> None:
    (answer,) = evaluator.evaluate([asked])
    assert len(answer.samples) == asked.n
    assert answer.prompt_version == "attributes@2"
    for chain in chains(answer):
        assert chain.arithmetic is Arithmetic.CONSISTENT
        assert sum(criterion.weight for criterion in chain.criteria) == 100
        assert 3 <= len(chain.criteria) <= 6
        assert chain.n_responses == len(asked.responses)
        assert all(1 <= r.score <= 10 and r.reason for row in chain.ratings for r in row if r)
        assert FORM_ONLY in chain.preferences
        assert parse(format_chain(chain), chain.n_responses) == chain


def test_a_chain_tells_past_choices_wishes_profile_and_measured_reasons() -> None:
    user = chooser(SHORT, LONG, [QUERIES[Scenario.TECHNICAL]]).model_copy(
        update={"criteria": ("no emojis, please",)}
    )
    (answer,) = evaluator.evaluate([request([SHORT, LONG], user)])
    chain = chains(answer)[0]
    assert "3 words over 120 words" in chain.preferences
    assert "Stated wishes about form: answers sober, without jokes or emoji." in chain.preferences
    assert chain.preferences.startswith("Wants answers ")
    assert "This is for a technical query;" in chain.preferences
    reasons = {rating.reason for row in chain.ratings for rating in row if rating}
    assert {"3 words", "120 words"} <= reasons


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=6))
def test_percentages_sum_to_one_hundred(sizes: list[float]) -> None:
    shares = percentages(sizes)
    assert sum(shares) == 100
    assert all(abs(s - 100 * x / sum(sizes)) < 1 for s, x in zip(shares, sizes, strict=True))


def test_totals_follow_the_sampled_utility() -> None:
    """Rounding and the limit of six criteria turn a close call now and then."""
    comparisons = list(World(seed=0).comparisons("test_unseen", 150))
    names = {attribute.low: i for i, attribute in enumerate(ATTRIBUTES)}
    names |= {attribute.high: i for i, attribute in enumerate(ATTRIBUTES)}
    agrees_shown, agrees_full = [], []
    for comparison in comparisons:
        scenario = classify(comparison.context)
        (belief,) = evaluator.model.beliefs([(evidence(comparison.user), scenario)])
        renderer = Renderer("", scenario, [measured(text) for text in comparison.responses])
        x = measure(comparison.responses[0]) - measure(comparison.responses[1])
        for weights in belief.weights(np.random.default_rng(0).standard_normal((8, N_ATTRIBUTES))):
            chain = renderer.chain(weights)
            shown = [names[c.name[:1].lower() + c.name[1:]] for c in chain.criteria]
            first, second = chain.scores()
            assert first is not None
            assert second is not None
            agrees_shown.append((first > second) == (weights[shown] @ x[shown] > 0))
            agrees_full.append((first > second) == (weights @ x > 0))
    assert np.mean(agrees_shown) > 0.98
    assert np.mean(agrees_full) > 0.94


# ---------------------------------------------------------------- what must not matter


@given(st.lists(requests, min_size=1, max_size=5), st.randoms())
@settings(max_examples=40)
def test_a_request_gets_the_same_chains_alone_and_in_any_batch(
    batch: list[ChainRequest], random: object
) -> None:
    alone = [evaluator.evaluate([asked])[0] for asked in batch]
    assert evaluator.evaluate(batch) == alone
    assert evaluator.evaluate(batch[::-1]) == alone[::-1]


@given(requests, st.data())
def test_permuting_the_responses_permutes_the_scores(
    asked: ChainRequest, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(asked.responses))))
    moved = asked.model_copy(update={"responses": tuple(asked.responses[i] for i in order)})
    for chain, permuted in zip(
        chains(evaluator.evaluate([asked])[0]), chains(evaluator.evaluate([moved])[0]), strict=True
    ):
        assert permuted.criteria == chain.criteria
        assert permuted.preferences == chain.preferences
        assert permuted.ratings == tuple(chain.ratings[i] for i in order)
        assert permuted.scores() == tuple(chain.scores()[i] for i in order)


@given(requests, texts)
def test_identical_responses_get_identical_scores(asked: ChainRequest, text: str) -> None:
    twice = asked.model_copy(update={"responses": (text, *asked.responses, text)})
    for chain in chains(evaluator.evaluate([twice])[0]):
        assert chain.scores()[0] == chain.scores()[-1]


def test_a_sample_does_not_depend_on_how_many_are_asked_for() -> None:
    user = chooser(SHORT, LONG, list(QUERIES.values()))
    many = evaluator.evaluate([request(TEXTS[:3], user, n=9)])[0].samples
    for n in range(1, 9):
        assert evaluator.evaluate([request(TEXTS[:3], user, n=n)])[0].samples == many[:n]


def test_seed_and_id_change_the_samples() -> None:
    sets = [
        evaluator.evaluate([request(TEXTS[:3], id=id, seed=seed)])[0]
        for id, seed in (("a", 0), ("a", 1), ("b", 0), ("a", 0))
    ]
    assert sets[0] == sets[3]
    assert len({chain_set.model_dump_json() for chain_set in sets}) == 3


def test_threads_give_the_same_chains() -> None:
    asked = [request(TEXTS[i % 5 : i % 5 + 3], id=f"c{i}") for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: evaluator.evaluate([one])[0], asked))
    assert together == evaluator.evaluate(asked)


# ---------------------------------------------------------------- odd input


def test_one_response_is_rated_on_its_own() -> None:
    brief = chooser(SHORT, LONG, list(QUERIES.values()) * 3)
    means = []
    for text in (SHORT, LONG):
        (answer,) = evaluator.evaluate([request([text], brief, n=16)])
        means.append(np.mean([chain.stated_scores[0] for chain in chains(answer)]))
    assert means[0] > 6
    assert means[0] > means[1] + 1


def test_empty_and_huge_responses_are_rated() -> None:
    (answer,) = evaluator.evaluate([request(["", "word " * 200_000])])
    assert all(chain.scores()[0] != chain.scores()[1] for chain in chains(answer))


def test_a_pair_with_equal_texts_is_left_out_and_said_so() -> None:
    user = chooser(SHORT, LONG, list(QUERIES.values())[:2])
    equal = Preference(context="Which?", chosen="Same.", rejected="Same.")
    padded = user.model_copy(update={"history": (user.history[0], equal, user.history[1])})
    (plain,) = evaluator.evaluate([request([SHORT, LONG], user)])
    (answer,) = evaluator.evaluate([request([SHORT, LONG], padded)])
    assert plain.cuts == ()
    assert answer.cuts == ("history: pair 2 left out: its two responses are the same text",)
    assert answer.samples == plain.samples


def test_only_some_of_a_long_history_is_told_but_all_of_it_counts() -> None:
    user = chooser(SHORT, LONG, list(QUERIES.values()) * 4)
    (answer,) = evaluator.evaluate([request([SHORT, LONG], user)])
    assert "Past choices (24, 4 of them on a technical query)" in chains(answer)[0].preferences
    assert "- and 21 more." in chains(answer)[0].preferences


# ---------------------------------------------------------------- it learns


@pytest.mark.parametrize("scenario", Scenario)
def test_who_always_chose_the_short_answer_gets_the_short_one(scenario: Scenario) -> None:
    responses = (
        "Turn it off and on.",
        "Turn it off, wait for a minute or two, and turn it on. " * 6,
    )
    brief = chooser(SHORT, LONG, list(QUERIES.values()))
    verbose = chooser(LONG, SHORT, list(QUERIES.values()))
    assert choice(brief, responses, QUERIES[scenario]) == 0
    assert choice(brief, responses[::-1], QUERIES[scenario]) == 1
    assert choice(verbose, responses, QUERIES[scenario]) == 1


@pytest.mark.parametrize(
    ("criterion", "liked", "disliked"),
    [
        ("Short answers please.", SHORT, LONG),
        ("I hate short answers.", LONG, SHORT),
        ("no emojis", "All done, have a nice day.", "All done 😀🎉, have a nice day 😂!"),
        ("I love emojis", "All done 😀🎉, have a nice day 😂!", "All done, have a nice day."),
        ("I like step-by-step lists", "1. Open it\n2. Close it", "Open it, close it"),
        ("Don't give me lists", "Open it, close it", "1. Open it\n2. Close it"),
    ],
)
def test_a_newcomer_gets_what_he_states(criterion: str, liked: str, disliked: str) -> None:
    user = User(id="u", criteria=(criterion,))
    assert choice(user, (liked, disliked), QUERIES[Scenario.FACTUAL]) == 0


def test_stated_criteria_count_beside_a_history() -> None:
    user = chooser(SHORT, LONG, [QUERIES[Scenario.TECHNICAL]])
    stating = user.model_copy(update={"criteria": ("I love emojis and jokes",)})
    responses = ("All done 😀🎉, ha 😂!", "All done, yes.")
    scores = []
    for who in (user, stating):
        chains_ = chains(evaluator.evaluate([request(responses, who, n=32)])[0])
        scores.append(np.mean([(c.scores()[0] or 0) - (c.scores()[1] or 0) for c in chains_]))
    assert scores[1] > scores[0]


@pytest.mark.parametrize(
    ("chosen", "rejected", "responses"),
    [
        (SHORT, LONG, ("Turn it off.", "Turn it off, and wait, and then turn it on again. " * 6)),
        ("- salt\n- oil\n- flour", "Salt, oil and flour", ("1. Red\n2. Blue", "Red, then blue")),
        ("I am so glad, dear friend.", "The form is due.", ("I hope you enjoy it.", "It is done.")),
        ("Haha, kidding 😂!", "No.", ("It rolled away 🎉, oops!", "It rolled away.")),
    ],
)
def test_flipping_the_choices_flips_the_verdict(
    chosen: str, rejected: str, responses: tuple[str, str]
) -> None:
    queries = list(QUERIES.values())
    for query in queries:
        assert choice(chooser(chosen, rejected, queries), responses, query) == 0
        assert choice(chooser(rejected, chosen, queries), responses, query) == 1


def test_a_fitted_model_gives_the_evaluator_its_name() -> None:
    assert AttributeEvaluator().name == "attributes"
    model = AttributeModel().fit(World(seed=0).comparisons("train", 60), name="toy")
    assert AttributeEvaluator(model).name == "attributes:toy"
    edited = model.population_.model_copy(update={"name": "default"})
    assert AttributeEvaluator(AttributeModel(edited)).name == "attributes:default"
    assert AttributeEvaluator(model).workers == 1
    AttributeEvaluator(model).close()
