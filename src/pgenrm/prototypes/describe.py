"""What a prototype stands for, in numbers and words: sizes, telling words, typical members.

Words are found between spaces and punctuation, and the stop words are English; in other languages
the words are as telling but less tidy.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import MissingExtraError
from pgenrm.seeding import rng
from pgenrm.types import Value

try:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
except ImportError as error:
    raise MissingExtraError("prototypes", "describing prototypes") from error

N_WORDS: Final = 6
N_TYPICAL: Final = 2
MAX_TEXTS: Final = 50_000
"""Texts that words are counted in, in about 7 s; of more, so many are drawn."""
CLEAR: Final = 1.96
"""A word is told if it is more frequent by at least so many standard errors."""
PRIOR_ROWS: Final = 1.0
"""Rows' worth of the overall share of a word that every share starts from [ours]."""
QUALIFIERS: Final = frozenset(
    ("few", "less", "many", "more", "most", "never", "no", "not", "without")
)
"""Words that turn or grade the next one: told in a pair with it, never alone."""
_PHRASE_END: Final = re.compile(r"[^\w\s'’-]+|\n")
_WORD: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|['’-](?=\w))+")


class Fitted(Protocol):
    """What descriptions and pictures read of fitted prototypes; n rows, k prototypes, d numbers.

    A row is one user in one scenario.
    """

    @property
    def prototypes_(self) -> NDArray[np.float32]:
        """[k, d], rows of length 1."""
        ...

    @property
    def rows_(self) -> NDArray[np.float32]:
        """[n, d], rows of length 1."""
        ...

    @property
    def assignment_(self) -> NDArray[np.intp]:
        """[n], the prototype of every row."""
        ...

    @property
    def row_users_(self) -> Sequence[str]:
        """[n], user ids."""
        ...

    @property
    def row_scenarios_(self) -> Sequence[str]:
        """[n]."""
        ...

    @property
    def row_texts_(self) -> Sequence[str]:
        """[n], the latest analysis of every row."""
        ...

    @property
    def spectrum_(self) -> NDArray[np.float64]:
        """Share of variance kept by the first 1, 2, ... singular vectors."""
        ...


class Member(Value):
    """A row of a prototype."""

    user_id: str
    scenario: str
    similarity: float
    """Cosine to the prototype."""
    text: str


class Summary(Value):
    """One prototype."""

    prototype: int
    n_rows: int
    n_users: int
    """Users with at least one row here; one user may be counted in several prototypes."""
    share: float
    """Of all rows, in [0, 1]."""
    scenarios: dict[str, int]
    """Rows by scenario, most first."""
    words: tuple[str, ...]
    """What its analyses say more often than all others, most telling first."""
    typical: tuple[Member, ...]
    """The rows nearest to the prototype, of different users."""


class Spread(Value):
    """How a figure varies over prototypes, each counting the same (macro statistics)."""

    mean: float
    median: float
    min: float
    max: float
    std: float
    """Of the prototypes as a population."""


class Description(Value):
    """All prototypes, by index."""

    n_rows: int
    n_users: int
    prototypes: tuple[Summary, ...]
    rows_per_prototype: Spread
    users_per_prototype: Spread

    @property
    def by_size(self) -> tuple[Summary, ...]:
        """The prototypes with the most rows first."""
        return tuple(sorted(self.prototypes, key=lambda s: -s.n_rows))


def describe(fitted: Fitted, n_words: int = N_WORDS, n_typical: int = N_TYPICAL) -> Description:
    """Sum up every prototype; one without rows has no words and no typical members."""
    k = len(fitted.prototypes_)
    assignment = np.asarray(fitted.assignment_)
    users, scenarios, texts = fitted.row_users_, fitted.row_scenarios_, fitted.row_texts_
    words = telling_words(texts, assignment, k, n_words)
    summaries = []
    for j in range(k):
        rows = np.flatnonzero(assignment == j)
        similarity = fitted.rows_[rows] @ fitted.prototypes_[j]
        nearest_first = np.argsort(-similarity, kind="stable")
        members = (
            Member(
                user_id=users[row],
                scenario=scenarios[row],
                similarity=round(float(similarity[i]), 4),
                text=texts[row],
            )
            for i, row in zip(nearest_first.tolist(), rows[nearest_first].tolist(), strict=True)
        )
        summaries.append(
            Summary(
                prototype=j,
                n_rows=len(rows),
                n_users=len({users[row] for row in rows.tolist()}),
                share=len(rows) / len(assignment),
                scenarios=dict(Counter(scenarios[row] for row in rows.tolist()).most_common()),
                words=words[j],
                typical=_of_different_users(members, n_typical),
            )
        )
    return Description(
        n_rows=len(assignment),
        n_users=len(set(users)),
        prototypes=tuple(summaries),
        rows_per_prototype=spread_of([s.n_rows for s in summaries]),
        users_per_prototype=spread_of([s.n_users for s in summaries]),
    )


def _of_different_users(members: Iterable[Member], n: int) -> tuple[Member, ...]:
    """Return the first n users' first rows."""
    first: dict[str, Member] = {}
    for member in members:
        if len(first) == n:
            break
        first.setdefault(member.user_id, member)
    return tuple(first.values())


def spread_of(values: Sequence[float]) -> Spread:
    """Return the macro statistics of at least one value.

    >>> spread_of([1, 2, 6]).mean
    3.0
    """
    return Spread(
        mean=float(np.mean(values)),
        median=float(np.median(values)),
        min=float(np.min(values)),
        max=float(np.max(values)),
        std=float(np.std(values)),
    )


def telling_words(
    texts: Sequence[str], assignment: NDArray[np.intp], n_prototypes: int, n_words: int = N_WORDS
) -> list[tuple[str, ...]]:
    """Return for every prototype the words and pairs of words that set its texts apart.

    A word is ranked by the log-odds ratio of the share of texts that hold it, inside against
    outside, in standard errors; both shares start from the overall one (after Monroe, Colaresi and
    Quinn 2008, with texts counted instead of occurrences). Of words that overlap the first stays.

    Args:
        texts: [n].
        assignment: [n], the prototype of every text.
        n_prototypes: how many there are; those without texts get no words.
        n_words: at most so many each; fewer where fewer are clear.
    """
    if len(texts) > MAX_TEXTS:
        drawn = np.sort(rng("telling words").choice(len(texts), MAX_TEXTS, replace=False))
        texts, assignment = [texts[i] for i in drawn], assignment[drawn]
    n_holding: list[Counter[str]] = [Counter() for _ in range(n_prototypes)]
    for text, prototype in zip(texts, assignment.tolist(), strict=True):
        n_holding[prototype].update(set(_terms(text)))
    n_holding_all: Counter[str] = Counter()
    for counter in n_holding:
        n_holding_all.update(counter)
    n_texts = np.bincount(assignment, minlength=n_prototypes).tolist()

    told = []
    for counter, n_inside in zip(n_holding, n_texts, strict=True):
        terms = sorted(counter)
        inside = np.array([counter[term] for term in terms], np.float64)
        everywhere = np.array([n_holding_all[term] for term in terms], np.float64)
        z = _log_odds_in_standard_errors(inside, n_inside, everywhere, len(texts))
        n_words_in = np.array([term.count(" ") for term in terms])
        order = np.lexsort(
            (-n_words_in, -z)
        )  # "without code" before "code" where both are as clear
        clear = [terms[i] for i in order.tolist() if z[i] >= CLEAR]
        told.append(_without_overlap(clear, n_words))
    return told


def _log_odds_in_standard_errors(
    inside: NDArray[np.float64], n_inside: int, everywhere: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Compare shares of texts, inside against outside; all arrays [n_terms]."""
    prior = PRIOR_ROWS * everywhere / (n + 1)  # n + 1: no share is one
    with_it = np.stack([inside, everywhere - inside]) + prior
    sizes = np.array([[n_inside], [n - n_inside]])
    without_it = sizes + PRIOR_ROWS - with_it
    log_odds = np.log(with_it / without_it)
    variance = (1 / with_it + 1 / without_it).sum(axis=0)
    difference: NDArray[np.float64] = (log_odds[0] - log_odds[1]) / np.sqrt(variance)
    return difference


def _terms(text: str) -> Iterator[str]:
    """Yield the words of a text and the pairs that stand within one phrase."""
    for phrase in _PHRASE_END.split(text.lower()):
        previous = ""
        for word in _WORD.findall(phrase):
            is_qualifier = word in QUALIFIERS
            if is_qualifier or word not in ENGLISH_STOP_WORDS:
                if not is_qualifier:
                    yield word
                    if previous:
                        yield f"{previous} {word}"
                previous = word
            else:
                previous = ""


def _without_overlap(terms: Sequence[str], n: int) -> tuple[str, ...]:
    """Keep the first n terms that share no word, qualifiers aside, with an earlier one."""
    kept: list[str] = []
    used: set[str] = set()
    for term in terms:
        words = set(term.split()) - QUALIFIERS
        if len(kept) < n and not words & used:
            kept.append(term)
            used |= words
    return tuple(kept)
