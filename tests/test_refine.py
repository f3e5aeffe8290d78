"""Refinement of prototypes: the mathematics against a per-sample loop, learning, bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from pgenrm.errors import InputError  # noqa: E402
from pgenrm.prototypes.draws import draw_others  # noqa: E402
from pgenrm.prototypes.refine import (  # noqa: E402
    Choices,
    Epoch,
    Refined,
    RefinementConfig,
    margins,
    refine,
)
from pgenrm.prototypes.scorer import PreferenceScorer, objective  # noqa: E402
from pgenrm.seeding import rng  # noqa: E402

Floats = NDArray[np.float32]
QUICK = RefinementConfig(max_epochs=2, batch_size=16)


def unit(rows: NDArray[Any]) -> Floats:
    normed: Floats = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return normed


class Crowd:
    """Users of known tastes and their choices.

    A response is its query plus a style plus noise. Users of a group share a taste for styles and
    have a part of their own; a user's row shows his taste in noise.
    """

    def __init__(
        self, name: str, n_users: int, n_choices: int = 8, d: int = 32, k: int = 4
    ) -> None:
        n_styles = 6
        fixed, generator = rng("world"), rng(name)
        styles = np.linalg.qr(fixed.normal(size=(d, n_styles)))[0].T
        profiles = np.linalg.qr(fixed.normal(size=(d, n_styles)))[0].T
        tastes = unit(fixed.normal(size=(k, n_styles)))
        self.group = generator.integers(k, size=n_users)
        taste = unit(tastes[self.group] + 0.5 * unit(generator.normal(size=(n_users, n_styles))))
        self.row = unit(taste @ profiles + 0.5 * unit(generator.normal(size=(n_users, d))))
        user = np.repeat(np.arange(n_users), n_choices)
        query = unit(generator.normal(size=(len(user), d)))
        style = generator.normal(size=(2, len(user), n_styles))
        noise = generator.normal(size=(2, len(user), d))
        responses = unit(query + 0.5 * style @ styles + 0.1 * noise)
        margin = 3 * ((style[0] - style[1]) * taste[user]).sum(axis=1)
        first = (generator.random(len(user)) < 1 / (1 + np.exp(-margin)))[:, None]
        self.choices = Choices(
            query=query,
            chosen=np.where(first, responses[0], responses[1]),
            rejected=np.where(first, responses[1], responses[0]),
            user=user,
        )
        self.member = self.row[user]
        self.centroids = unit(np.stack([self.row[self.group == j].mean(axis=0) for j in range(k)]))

    def accuracy(self, refined: Refined) -> float:
        own = (self.member @ refined.prototypes.T).argmax(axis=1)
        margin = margins(refined.scorer, refined.prototypes, self.choices)
        return float((margin[np.arange(len(own)), own] > 0).mean())


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd("small", n_users=12, n_choices=5, d=8)


# ---------------------------------------------------------------- the mathematics


def scorer_with_random_weights(d: int, **settings: float) -> PreferenceScorer:
    scorer = PreferenceScorer(d, **settings).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in scorer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return scorer


def margin_of_one_sample(
    scorer: PreferenceScorer, prototype: Any, query: Any, difference: Any, history: list[Any]
) -> Any:
    """Follow equations 4 to 6 word by word for one sample and one prototype."""
    d = len(query)
    z = prototype + scorer.lambda_query * (scorer.W_q @ query)
    if history:
        o = [torch.tanh(scorer.W @ torch.cat([q, delta])) for q, delta in history]
        logits = [(o_i @ query) / d**0.5 + scorer.rho * (o_i @ prototype) / d**0.5 for o_i in o]
        alpha = torch.softmax(torch.stack(logits), dim=0)
        v = sum(a * o_i for a, o_i in zip(alpha, o, strict=True))
        z = z + scorer.lambda_history * (scorer.W_s @ v)
    return z @ difference


def test_loss_and_gradients_equal_those_of_a_loop_over_samples() -> None:
    n, d, k, h = 9, 5, 3, 4
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, difference, means, previous = draw(n, d), draw(n, d), draw(k, d), draw(k, d)
    others = torch.randint(0, n, (n, h), generator=generator)
    shown = torch.rand((n, h), generator=generator) < 0.6
    shown[0] = False  # a user without other choices
    assignment = torch.tensor([0, 2, 2, 0, 0, 2, 0, 2, 2])  # nobody in prototype 1
    weights = {"rho": 0.7, "lambda_query": 0.8, "lambda_history": 1.3}

    fast, slow = scorer_with_random_weights(d, **weights), scorer_with_random_weights(d, **weights)
    fast_prototypes = draw(k, d).requires_grad_()
    slow_prototypes = fast_prototypes.detach().clone().requires_grad_()

    under_all = fast.margins(
        fast_prototypes, query, difference, fast.read(query, difference), others, shown
    )
    loss = objective(
        under_all,
        assignment,
        fast_prototypes,
        means,
        previous,
        lambda_centre=0.3,
        lambda_trust=0.2,
    )
    loss.backward()  # type: ignore[no-untyped-call]

    total = torch.zeros((), dtype=torch.float64)
    for t in range(n):
        history = [(query[s], difference[s]) for s in others[t][shown[t]]]
        for j in range(k):
            args = (query[t], difference[t], history)
            margin = margin_of_one_sample(slow, slow_prototypes[j], *args)
            torch.testing.assert_close(under_all[t, j], margin)
            if j == assignment[t]:
                total = total - torch.log(torch.sigmoid(margin))
                total = total + 0.3 * (slow_prototypes[j] - means[j]).norm() ** 2
                total = total + 0.2 * (slow_prototypes[j] - previous[j]).norm() ** 2
    (total / n).backward()

    torch.testing.assert_close(loss, total / n)
    torch.testing.assert_close(fast_prototypes.grad, slow_prototypes.grad)
    for name in ("W", "W_q", "W_s"):
        torch.testing.assert_close(getattr(fast, name).grad, getattr(slow, name).grad)
    assert not fast_prototypes.grad[1].any()


def test_swapping_chosen_and_rejected_of_a_pair_negates_its_margin() -> None:
    scorer = scorer_with_random_weights(4)
    query, difference = torch.randn(2, 3, 4, dtype=torch.float64)
    readings = scorer.read(query, difference)
    history, shown = torch.tensor([[1], [2], [0]]), torch.ones(3, 1, dtype=torch.bool)
    prototypes = torch.eye(4, dtype=torch.float64)
    there = scorer.margins(prototypes, query, difference, readings, history, shown)
    back = scorer.margins(prototypes, query, -difference, readings, history, shown)
    torch.testing.assert_close(there, -back)


def test_rho_weighs_the_prototype_in_the_attention(crowd: Crowd) -> None:
    prototypes = crowd.centroids
    difference = crowd.choices.chosen - crowd.choices.rejected

    def history_term(rho: float) -> NDArray[Any]:
        scorer = PreferenceScorer(8, rho=rho)
        return margins(scorer, prototypes, crowd.choices) - difference @ prototypes.T

    without, with_it = history_term(0.0), history_term(2.0)
    np.testing.assert_allclose(without[:, 0], without[:, 1], atol=1e-6)
    assert np.abs(with_it[:, 0] - with_it[:, 1]).max() > 1e-3


def test_margins_depend_on_neither_batch_size_nor_order_where_all_choices_are_shown(
    crowd: Crowd,
) -> None:
    scorer = PreferenceScorer(8)
    whole = margins(scorer, crowd.centroids, crowd.choices, n_history=4)
    parts = margins(scorer, crowd.centroids, crowd.choices, n_history=4, batch_size=7)
    order = rng("order").permutation(len(whole))
    shuffled = Choices(
        crowd.choices.query[order],
        crowd.choices.chosen[order],
        crowd.choices.rejected[order],
        crowd.choices.user[order],
    )
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(
        margins(scorer, crowd.centroids, shuffled, n_history=4), whole[order], atol=1e-6
    )


def test_a_scorer_is_rebuilt_from_its_arrays(crowd: Crowd) -> None:
    config = replace(QUICK, rho=0.3, lambda_query=0.4, lambda_history=0.6)
    refined = refine(crowd.centroids, crowd.member, crowd.choices, config=config)
    rebuilt = PreferenceScorer.from_arrays(refined.scorer.arrays())
    np.testing.assert_array_equal(
        margins(rebuilt, refined.prototypes, crowd.choices),
        margins(refined.scorer, refined.prototypes, crowd.choices),
    )


# ---------------------------------------------------------------- histories


@given(
    user=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    n_history=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_a_history_is_distinct_other_choices_of_the_user_and_as_many_as_there_are(
    user: list[int], n_history: int, seed: int
) -> None:
    others, shown = draw_others(np.array(user), n_history, np.random.default_rng(seed))
    for t, (row, is_shown) in enumerate(zip(others.tolist(), shown, strict=True)):
        kept = [s for s, flag in zip(row, is_shown, strict=True) if flag]
        assert t not in kept
        assert len(kept) == len(set(kept)) == min(n_history, user.count(user[t]) - 1)
        assert all(user[s] == user[t] for s in kept)
        assert all(s == t for s, flag in zip(row, is_shown, strict=True) if not flag)


def test_every_other_choice_is_drawn_equally_often() -> None:
    counts = np.zeros((6, 6))
    for seed in range(3000):
        others, _ = draw_others(np.zeros(6, np.int64), 3, np.random.default_rng(seed))
        np.add.at(counts, (np.arange(6)[:, None], others), 1)
    expected = 3000 * 3 / 5 * (1 - np.eye(6))
    assert np.abs(counts - expected).max() < 5 * (3000 * 0.6 * 0.4) ** 0.5


# ---------------------------------------------------------------- training


def test_refinement_learns_what_unseen_users_prefer() -> None:
    train, held_out, unseen = Crowd("train", 400), Crowd("held out", 60), Crowd("unseen", 200)
    validation = (held_out.member, held_out.choices)
    untrained = RefinementConfig(max_epochs=1, learning_rate=0.0)
    before = refine(train.centroids, train.member, train.choices, config=untrained)
    config = RefinementConfig(max_epochs=20)
    after = refine(train.centroids, train.member, train.choices, validation, config)
    assert unseen.accuracy(before) < 0.6
    assert unseen.accuracy(after) > 0.65
    assert after.best_epoch > 0
    of_unseen = (unseen.row @ after.prototypes.T).argmax(axis=1)
    assert (of_unseen == unseen.group).mean() > 0.9


def test_where_choices_are_chance_the_result_is_never_worse_on_the_held_out_ones() -> None:
    generator = rng("chance")
    train, held_out = Crowd("train", 30), Crowd("held out", 30)
    flip = (generator.random(len(train.choices.user)) < 0.5)[:, None]
    chance = replace(
        train.choices,
        chosen=np.where(flip, train.choices.rejected, train.choices.chosen),
        rejected=np.where(flip, train.choices.chosen, train.choices.rejected),
    )
    config = RefinementConfig(patience=2)
    validation = (held_out.member, held_out.choices)
    refined = refine(train.centroids, train.member, chance, validation, config)
    accuracies = [epoch.validation_accuracy or 0.0 for epoch in refined.epochs]
    assert accuracies[refined.best_epoch] == max(accuracies)
    assert len(refined.epochs) - 1 <= refined.best_epoch + config.patience
    if refined.best_epoch == 0:
        np.testing.assert_array_equal(refined.prototypes, train.centroids)


def test_prototypes_stay_on_the_sphere_and_members_with_the_nearest(crowd: Crowd) -> None:
    refined = refine(crowd.centroids, crowd.member, crowd.choices, config=QUICK)
    np.testing.assert_allclose(np.linalg.norm(refined.prototypes, axis=1), 1, atol=1e-6)
    assert np.abs(refined.prototypes - crowd.centroids).max() > 1e-4
    nearest = (crowd.member @ refined.prototypes.T).argmax(axis=1)
    np.testing.assert_array_equal(refined.assignment, nearest)


def test_members_are_assigned_anew_and_prototypes_follow_their_mean() -> None:
    crowd = Crowd("moving", n_users=40)
    config = RefinementConfig(max_epochs=10, learning_rate=0.01, lambda_centre=3.0)
    refined = refine(crowd.row[:4], crowd.member, crowd.choices, config=config)
    assert sum(epoch.n_reassigned for epoch in refined.epochs) > 0

    def similarity(prototypes: Floats) -> float:
        return float((crowd.row @ prototypes.T).max(axis=1).mean())

    assert similarity(refined.prototypes) > similarity(crowd.row[:4]) + 0.02


@pytest.mark.parametrize("term", ["lambda_centre", "lambda_trust"])
def test_each_regulariser_holds_prototypes_back(crowd: Crowd, term: str) -> None:
    def drift(weight: float) -> float:
        weights = {"lambda_centre": 0.0, "lambda_trust": 0.0} | {term: weight}
        config = RefinementConfig(max_epochs=10, learning_rate=0.01, **weights)  # type: ignore[arg-type]
        refined = refine(crowd.centroids, crowd.member, crowd.choices, config=config)
        return float(np.linalg.norm(refined.prototypes - crowd.centroids))

    assert drift(10.0) < 0.5 * drift(0.0)


def test_a_prototype_without_members_stays_where_it_is(crowd: Crowd) -> None:
    lonely = unit(-crowd.row.mean(axis=0, keepdims=True))
    assert (crowd.member @ lonely.T).max() < (crowd.member @ crowd.centroids.T).max(axis=1).min()
    with_lonely = np.concatenate([crowd.centroids, lonely])
    refined = refine(with_lonely, crowd.member, crowd.choices, config=QUICK)
    np.testing.assert_array_equal(refined.prototypes[-1], lonely[0])
    assert not (refined.assignment == len(crowd.centroids)).any()


def test_a_prototype_that_lost_its_members_stops() -> None:
    crowd = Crowd("losing", n_users=20)
    twice = np.concatenate([crowd.centroids, unit(crowd.centroids[:1] + 0.05)])
    many = RefinementConfig(max_epochs=6, batch_size=16)
    few = replace(many, max_epochs=5)
    sixth, fifth = (
        refine(twice, crowd.member, crowd.choices, config=config) for config in (many, few)
    )
    empty = np.setdiff1d(np.arange(5), fifth.assignment)
    np.testing.assert_array_equal(sixth.prototypes[empty], fifth.prototypes[empty])


def test_users_with_a_single_choice_train_without_history(crowd: Crowd) -> None:
    single = replace(crowd.choices, user=np.arange(len(crowd.member)))
    refined = refine(crowd.centroids, crowd.member, single, config=QUICK)
    assert np.isfinite(refined.prototypes).all()
    start = PreferenceScorer(8)
    torch.testing.assert_close(refined.scorer.W_s, start.W_s, atol=1e-3, rtol=0)  # decay alone
    assert (refined.scorer.W_q - start.W_q).abs().max() > 1e-3


def test_a_run_depends_on_its_seed_alone(crowd: Crowd) -> None:
    def run(seed: int) -> Refined:
        return refine(
            crowd.centroids, crowd.member, crowd.choices, config=replace(QUICK, seed=seed)
        )

    first = run(0)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = run(0)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(first.prototypes, again.prototypes)
    assert first.epochs == again.epochs
    assert np.abs(run(1).prototypes - first.prototypes).max() > 0


def test_inputs_are_left_as_they_were_and_progress_is_told_every_epoch(crowd: Crowd) -> None:
    before = crowd.centroids.copy()
    told: list[Epoch] = []
    refined = refine(
        crowd.centroids,
        crowd.member,
        crowd.choices,
        (crowd.member, crowd.choices),
        QUICK,
        told.append,
    )
    np.testing.assert_array_equal(crowd.centroids, before)
    assert tuple(told) == refined.epochs
    assert [epoch.epoch for epoch in told] == [0, 1, 2]
    assert told[0].loss is None


# ---------------------------------------------------------------- bad input


def test_bad_arrays_are_refused_with_their_place(crowd: Crowd) -> None:
    nan = crowd.choices.chosen.copy()
    nan[3, 1] = np.nan
    none = np.empty((0, 8), np.float32)
    nothing = Choices(none, none, none, np.empty(0, np.int64))
    narrow = replace(crowd.choices, query=crowd.choices.query[:, :4])
    for member, choices, message in (
        (crowd.member, replace(crowd.choices, chosen=nan), r"chosen\[3\] is not finite"),
        (crowd.member[:-1], crowd.choices, r"member has shape \(59, 8\), expected \(60, 8\)"),
        (crowd.member[:0], nothing, "choices are empty"),
    ):
        with pytest.raises(InputError, match=message):
            refine(crowd.centroids, member, choices, config=QUICK)
    with pytest.raises(InputError, match=r"validation choices: query has shape"):
        refine(crowd.centroids, crowd.member, crowd.choices, (crowd.member, narrow), QUICK)


def test_a_learning_rate_that_breaks_the_loss_is_named(crowd: Crowd) -> None:
    wild = replace(QUICK, learning_rate=1e30)
    with pytest.raises(
        InputError, match=r"diverged in epoch \d; lower its learning_rate, now 1e\+30"
    ):
        refine(crowd.centroids, crowd.member, crowd.choices, config=wild)


@pytest.mark.parametrize("name", ["n_history", "batch_size", "max_epochs", "patience"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0"):
        RefinementConfig(**{name: 0})
