"""Any method under an altered view of its users: what is left shows what it owes to them."""

from collections.abc import Sequence

from pgenrm.errors import InputError
from pgenrm.methods.known import as_given
from pgenrm.methods.protocol import Method
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Judgment, Preference, User


class ShuffledUsers:
    """Judges every user's comparisons as if somebody else had asked.

    The other one is a whole user, with id, history and statements, to whom the method was adapted
    as ever. So everything that a method knows about users, wherever it keeps it, is somebody
    else's, and a method that does not fall to the population's level uses none of it.

    Who stands in for whom depends on all users that are adapted to, and on the seed; adapt to all
    before scoring. That is why it counts as trained.
    """

    is_trained = True

    def __init__(self, inner: Method, *, seed: int = 0) -> None:
        """Wrap a method.

        Args:
            inner: fitted through the wrapper, or beforehand.
            seed: of who stands in for whom.
        """
        self.inner = inner
        self.seed = seed
        self.name = f"{inner.name}+shuffled"
        self.version = f"{inner.version} shuffled@1"
        self._users: dict[str, User] = {}

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Fit the method on everybody's own choices."""
        self.inner.fit(train, validation)

    def adapt(self, users: Sequence[User]) -> None:
        """Adapt the method to the users as they are."""
        self.inner.adapt(users)
        self._users |= {user.id: user for user in users}

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order, each as of another user.

        A user to whom nothing was adapted stays himself.

        Raises:
            InputError: there is only one user, so that nobody can stand in.
        """
        if len(self._users) == 1:
            [only] = self._users
            raise InputError(f"{self.name}: nobody can stand in for {only!r}, the only user")
        ring = sorted(self._users, key=lambda name: derive_seed("shuffled", self.seed, name))
        stands_in = dict(zip(ring, ring[1:] + ring[:1], strict=True))
        changed = [
            comparison.model_copy(update={"user": self._users[stands_in[comparison.user.id]]})
            if comparison.user.id in stands_in
            else comparison
            for comparison in comparisons
        ]
        return as_given(self.inner.score(changed), comparisons)


class FlippedHistory:
    """Judges with every past choice turned round: what was chosen counts as rejected.

    Statements stay as they are. A method that learns from choices then prefers the opposite.
    """

    def __init__(self, inner: Method) -> None:
        """Wrap a method, fitted through the wrapper or beforehand."""
        self.inner = inner
        self.name = f"{inner.name}+flipped"
        self.version = f"{inner.version} flipped@1"
        self.is_trained = inner.is_trained

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Fit the method on choices as they were made."""
        self.inner.fit(train, validation)

    def adapt(self, users: Sequence[User]) -> None:
        """Adapt the method to the users' flipped choices."""
        self.inner.adapt([_flipped(user) for user in users])

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order; only the histories in them are flipped."""
        changed = [c.model_copy(update={"user": _flipped(c.user)}) for c in comparisons]
        return as_given(self.inner.score(changed), comparisons)


def _flipped(user: User) -> User:
    return user.model_copy(update={"history": tuple(map(_turned_round, user.history))})


def _turned_round(pair: Preference) -> Preference:
    return pair.model_copy(
        update={
            "chosen": pair.rejected,
            "rejected": pair.chosen,
            "chosen_score": pair.rejected_score,
            "rejected_score": pair.chosen_score,
        }
    )
