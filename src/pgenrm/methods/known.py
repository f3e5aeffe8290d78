"""What methods that learn in context keep of `adapt`: the histories, to be shown when judging."""

from collections.abc import Iterable, Sequence

from pgenrm.history import discloses
from pgenrm.judge import PGenRM
from pgenrm.types import Comparison, Judgment, Preference, User
from pgenrm.verdict import digest


class Known:
    """The histories of the users that a method was adapted to."""

    def __init__(self) -> None:
        self._histories: dict[str, tuple[Preference, ...]] = {}

    def adapt(self, users: Iterable[User]) -> None:
        """Keep the histories of these users, in place of what was kept of them before."""
        self._histories |= {user.id: user.history for user in users}

    def shown(self, comparison: Comparison) -> Comparison:
        """Return the comparison with the history that was adapted to in place of its own.

        Without adaptation there is none. Choices in the very context of the comparison, and in
        later turns of it, are left out: they could tell the choice that is to be predicted.
        """
        history = tuple(
            pair
            for pair in self._histories.get(comparison.user.id, ())
            if not discloses(pair.context, {comparison.context})
        )
        user = comparison.user.model_copy(update={"history": history})
        return comparison.model_copy(update={"user": user})


def judged_as(
    judge: PGenRM, shown: Iterable[Comparison], given: Sequence[Comparison]
) -> list[Judgment]:
    """Judge comparisons in the form that is shown, and name them in the judgments as given."""
    return as_given(list(judge.judge(shown)), given)


def as_given(judgments: Sequence[Judgment], given: Sequence[Comparison]) -> list[Judgment]:
    """Name in judgments of changed comparisons the users and digests of those that were given."""
    return [
        judgment.model_copy(
            update={"user_id": comparison.user.id, "comparison_digest": digest(comparison)}
        )
        for judgment, comparison in zip(judgments, given, strict=True)
    ]
