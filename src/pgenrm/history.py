"""Which past choices a judgment sees, and users put together from comparisons."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from pgenrm.seeding import rng
from pgenrm.types import Comparison, Context, Preference, User


def draw_history(comparison: Comparison, n_pairs: int, seed: int = 0) -> Comparison:
    """Keep `n_pairs` of the user's past choices, drawn by (seed, comparison id); see `draw_pairs`.

    Paper, section 3.1: h of them, drawn at random.
    """
    user = draw_pairs(comparison.user, n_pairs, seed, comparison.id)
    return comparison.model_copy(update={"user": user})


def draw_pairs(user: User, n_pairs: int, seed: int, item_id: str) -> User:
    """Keep `n_pairs` of the user's past choices, drawn at random by (seed, item id).

    The drawn pairs keep their order. The same seed draws nested sets: the pairs drawn for h are
    among those drawn for h + 1, so that a study over h compares like with like.
    """
    if len(user.history) <= n_pairs:
        return user
    shuffled = rng("history", seed, item_id).permutation(len(user.history))
    kept = tuple(user.history[i] for i in sorted(shuffled[:n_pairs].tolist()))
    return user.model_copy(update={"history": kept})


def discloses(context: Context, asked: AbstractSet[Context]) -> bool:
    """Whether a past choice made in `context` tells what was chosen in one of the asked contexts.

    It does in the very same context, whatever the responses, and in a later turn of the
    conversation, which goes on from the chosen response.
    """
    return any(context[:n] in asked for n in range(1, len(context) + 1))


def tells_label(pair: Preference, comparison: Comparison) -> bool:
    """Whether a past choice tells which response was chosen in a comparison.

    One in the very same context does if it concerns one of the responses, and so does one in a
    later turn.
    """
    if pair.context == comparison.context:
        return not {pair.chosen, pair.rejected}.isdisjoint(comparison.responses)
    return discloses(pair.context, {comparison.context})


def gather_users(comparisons: Iterable[Comparison]) -> list[User]:
    """Put together what rows tell about each user: one user per id, in order of first appearance.

    His history are the distinct choices in the histories of his rows and in the labelled rows
    themselves, in the order of the rows; a labelled row among N responses counts as the labelled
    one over each other. Labels become history, so give training rows only. Of two records of one
    choice the one with the user's ratings is kept. A choice between identical texts is none.

    Criteria, self-description and demographics are each taken from his first row that has them.
    """
    users: dict[str, User] = {}
    histories: dict[str, dict[_Choice, Preference]] = {}
    for comparison in comparisons:
        user = comparison.user
        known = users.setdefault(user.id, user)
        statements = ("criteria", "self_description", "demographics")
        if gained := {n: getattr(user, n) for n in statements if not getattr(known, n)}:
            users[user.id] = known.model_copy(update=gained)
        history = histories.setdefault(user.id, {})
        for pair in (*user.history, *_labelled(comparison)):
            choice = (pair.context, pair.chosen, pair.rejected)
            if pair.is_informative and not _is_rated(history.get(choice)):
                history[choice] = pair
    return [
        user.model_copy(update={"history": tuple(histories[user.id].values())})
        for user in users.values()
    ]


_Choice = tuple[Context, str, str]


def _labelled(comparison: Comparison) -> list[Preference]:
    """Return the choices that the label states."""
    if comparison.label is None:
        return []
    chosen = comparison.responses[comparison.label]
    return [
        Preference(context=comparison.context, chosen=chosen, rejected=other)
        for i, other in enumerate(comparison.responses)
        if i != comparison.label
    ]


def _is_rated(pair: Preference | None) -> bool:
    return pair is not None and (pair.chosen_score is not None or bool(pair.choice_attributes))
