"""History-aware attentive refinement of prototypes (paper, section 3.3, equations 4 to 7).

Prototypes move so that their members' past choices come out right, while staying near the mean of
their members and near where they were. Everything is vectorised over samples and prototypes; a
per-sample version of the same mathematics stands in `tests/test_refine.py`.

Two points where the authors' released code differs from their equations follow the equations: rho
weighs the prototype in the attention, and both regularisers are part of the loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.seeding import rng

try:
    import torch
    from torch import Tensor
    from torch.nn.functional import normalize, softplus
except ImportError as error:
    raise MissingExtraError("prototypes", "the refinement of prototypes") from error

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RefinementConfig:
    """Settings of the refinement, each with its source."""

    rho: float = 0.5
    """Weight of the prototype in the attention. Released default."""
    lambda_query: float = 1.0
    """Weight of the query in z. Released default."""
    lambda_history: float = 1.0
    """Weight of the attended history in z. Released default."""
    lambda_centre: float = 1.0
    """Pull towards the mean of the members. Ours; the paper gives no value."""
    lambda_trust: float = 1.0
    """Pull towards the moving average of the prototype. Ours; the paper gives no value."""
    n_history: int = 3
    """Past choices per sample. The paper's h."""
    learning_rate: float = 1e-3
    """Of AdamW. Released default."""
    batch_size: int = 256
    """Samples per step. Ours."""
    max_epochs: int = 30
    """Ours."""
    patience: int = 3
    """Stop after so many epochs without a lower validation loss. Ours."""
    ema: float = 0.98
    """Share of the old value in the moving average. Released default."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for name in ("n_history", "batch_size", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")


@dataclass(frozen=True)
class Choices:
    """Embeddings of past choices, sample by sample."""

    query: Floats
    """[n, d]"""
    chosen: Floats
    """[n, d]"""
    rejected: Floats
    """[n, d]"""
    user: Ints
    """[n]; choices with the same number are one user's and form each other's history."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch did; epoch 0 is the state before training."""

    epoch: int
    loss: float | None
    """Mean of the whole objective over the epoch's samples, while training; None for epoch 0."""
    n_reassigned: int
    """Samples whose member moved to another prototype after this epoch."""
    validation_loss: float | None
    """Mean of -log sigmoid(margin) on the validation choices; None without them."""
    validation_accuracy: float | None
    """Share of the validation choices with a margin above 0."""


@dataclass(frozen=True)
class Refined:
    """Prototypes after refinement."""

    prototypes: Floats
    """[k, d], L2-normalised."""
    assignment: Ints
    """[n], the nearest prototype of every sample's member."""
    epochs: tuple[Epoch, ...]
    best_epoch: int
    """The epoch that the result is from: that of the lowest validation loss, else the last."""
    scorer: PreferenceScorer


def refine(
    centroids: Floats,
    member: Floats,
    choices: Choices,
    validation: tuple[Floats, Choices] | None = None,
    config: RefinementConfig | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Refined:
    """Refine prototypes on the choices of their members.

    In every epoch all samples are visited once, each with `n_history` other choices of its user,
    and members are assigned anew afterwards. A prototype without members stays where it is. With
    validation choices (of other users), the best epoch is returned: where training never lowers
    the validation loss, that is the centroids as given.

    Args:
        centroids: [k, d], L2-normalised.
        member: [n, d]; for every choice, the row of the store that it belongs to. A cluster's mean
            therefore counts a row once per choice.
        choices: n samples.
        validation: the same two for held-out users.
        config: settings; the defaults where None.
        progress: is told every epoch.

    Raises:
        InputError: shapes that do not fit, no choices, or an embedding with NaN or infinity.
    """
    config = config or RefinementConfig()
    _check(centroids, member, choices, "choices")
    if validation is not None:
        _check(centroids, *validation, "validation choices")
    training = _Training(centroids, member, choices, config)
    epochs: list[Epoch] = []
    best_epoch, best_loss, best = 0, float("inf"), training.state()
    for epoch in range(config.max_epochs + 1):
        loss, n_reassigned = (None, 0) if epoch == 0 else training.run_epoch(epoch)
        checked = None if validation is None else training.validate(*validation)
        epochs.append(Epoch(epoch, loss, n_reassigned, *(checked or (None, None))))
        if progress is not None:
            progress(epochs[-1])
        if checked is None or checked[0] < best_loss:
            best_epoch, best_loss = epoch, checked[0] if checked else best_loss
            best = training.state()
        elif epoch - best_epoch >= config.patience:
            break
    prototypes, weights = best
    training.scorer.load_state_dict(weights)
    return Refined(
        prototypes=prototypes.numpy(),
        assignment=nearest(torch.from_numpy(member), prototypes).numpy(),
        epochs=tuple(epochs),
        best_epoch=best_epoch,
        scorer=training.scorer.requires_grad_(False),
    )


def margins(
    scorer: PreferenceScorer,
    prototypes: Floats,
    choices: Choices,
    *,
    n_history: int = 3,
    seed: int = 0,
    batch_size: int = 256,
) -> Floats:
    """Return the margin [n, k] of every choice under every prototype; above 0 is right."""
    history, shown = draw_histories(choices.user, n_history, rng("refine-margins", seed))
    samples = _Samples(choices, history, shown)
    with torch.no_grad():
        parts = [
            samples.margins(scorer, torch.from_numpy(prototypes), batch)
            for batch in torch.split(torch.arange(len(choices.user)), batch_size)
        ]
    return torch.cat(parts).numpy()


def draw_histories(
    user: Ints, n_history: int, generator: np.random.Generator
) -> tuple[Ints, NDArray[np.bool_]]:
    """Draw up to `n_history` distinct other choices of the same user for every choice.

    Returns the indices [n, n_history] and which of them are shown; a user with too few other
    choices has fewer shown, and the rest are padded with the choice's own index.
    """
    n = len(user)
    by_user = np.argsort(user, kind="stable")
    _, start, size = np.unique(user[by_user], return_index=True, return_counts=True)
    n_others = np.repeat(size, size) - 1
    start = np.repeat(start, size)
    own = np.arange(n) - start  # place among the user's choices
    n_shown = np.minimum(n_others, n_history)
    drawn = np.full((n, n_history), -1)
    # Floyd's sampling without replacement, for all choices at once.
    for i in range(n_history):
        last = n_others - n_shown + i
        pick = np.floor(generator.random(n) * (last + 1)).astype(np.int64)
        taken = (drawn[:, :i] == pick[:, None]).any(axis=1)
        drawn[:, i] = np.where(taken, last, pick)
    shown = np.arange(n_history) < n_shown[:, None]
    place = drawn + (drawn >= own[:, None])  # skip the choice itself
    history = np.empty((n, n_history), dtype=np.int64)
    history[by_user] = by_user[np.where(shown, start[:, None] + place, np.arange(n)[:, None])]
    return history, shown[np.argsort(by_user)]


def nearest(member: Tensor, prototypes: Tensor) -> Tensor:
    """Return the index [n] of the most similar prototype."""
    return torch.cat([(part @ prototypes.T).argmax(dim=1) for part in torch.split(member, 65_536)])


def objective(
    margins: Tensor,
    assignment: Tensor,
    prototypes: Tensor,
    means: Tensor,
    previous: Tensor,
    config: RefinementConfig,
) -> Tensor:
    """Return equation 7, the mean over samples of pair loss, centre and trust terms.

    Args:
        margins: [b, k].
        assignment: int [b], the prototype of every sample.
        prototypes: a, [k, d].
        means: mu, [k, d].
        previous: p, [k, d].
        config: the two weights.
    """
    pair = softplus(-margins.gather(1, assignment[:, None])).mean()
    centre = (prototypes - means).square().sum(dim=1)[assignment].mean()
    trust = (prototypes - previous).square().sum(dim=1)[assignment].mean()
    return pair + config.lambda_centre * centre + config.lambda_trust * trust


class _Samples:
    """Choices as tensors, with a drawn history for each."""

    def __init__(self, choices: Choices, history: Ints, shown: NDArray[np.bool_]) -> None:
        self.query = torch.from_numpy(choices.query)
        self.difference = torch.from_numpy(choices.chosen - choices.rejected)
        self.history = torch.from_numpy(history)
        self.shown = torch.from_numpy(shown)

    def margins(self, scorer: PreferenceScorer, prototypes: Tensor, batch: Tensor) -> Tensor:
        """Return the margins [b, k] of the samples `batch` under all prototypes."""
        distinct, history = torch.unique(self.history[batch], return_inverse=True)
        readings = scorer.read(self.query[distinct], self.difference[distinct])
        return scorer.margins(
            prototypes,
            self.query[batch],
            self.difference[batch],
            readings,
            history,
            self.shown[batch],
        )


class _Training:
    """Prototypes and scorer while they are trained."""

    def __init__(
        self, centroids: Floats, member: Floats, choices: Choices, config: RefinementConfig
    ) -> None:
        self.config = config
        self.member = torch.from_numpy(member)
        self.choices = choices
        self.prototypes = torch.tensor(centroids, requires_grad=True)
        self.previous = self.prototypes.detach().clone()
        self.scorer = PreferenceScorer(
            centroids.shape[1],
            rho=config.rho,
            lambda_query=config.lambda_query,
            lambda_history=config.lambda_history,
        )
        self.optimizer = torch.optim.AdamW(
            [self.prototypes, *self.scorer.parameters()], lr=config.learning_rate, fused=True
        )
        self._assign()

    def state(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return copies of the prototypes and the scorer's weights."""
        weights = {name: value.clone() for name, value in self.scorer.state_dict().items()}
        return self.prototypes.detach().clone(), weights

    def run_epoch(self, epoch: int) -> tuple[float, int]:
        """Visit every sample once, then assign anew; return mean loss and samples reassigned."""
        generator = rng("refine-epoch", self.config.seed, epoch)
        histories = draw_histories(self.choices.user, self.config.n_history, generator)
        samples = _Samples(self.choices, *histories)
        total = 0.0
        for batch in self._batches(generator):
            loss = objective(
                samples.margins(self.scorer, self.prototypes, batch),
                self.assignment[batch],
                self.prototypes,
                self.means,
                self.previous,
                self.config,
            )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._step()
            total += loss.item() * len(batch)
        before = self.assignment
        self._assign()
        return total / len(self.member), int((self.assignment != before).sum())

    def validate(self, member: Floats, choices: Choices) -> tuple[float, float]:
        """Return pair loss and accuracy of held-out choices under their nearest prototypes."""
        prototypes = self.prototypes.detach()
        own = nearest(torch.from_numpy(member), prototypes).numpy()
        under_all = margins(
            self.scorer,
            prototypes.numpy(),
            choices,
            n_history=self.config.n_history,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
        )
        margin = torch.from_numpy(under_all[np.arange(len(own)), own])
        return float(softplus(-margin).mean()), float((margin > 0).float().mean())

    def _batches(self, generator: np.random.Generator) -> Iterator[Tensor]:
        """Shuffle users, not samples: a batch then shares most of its distinct past choices."""
        _, user = np.unique(self.choices.user, return_inverse=True)
        order = np.argsort(generator.permutation(user.max() + 1)[user], kind="stable")
        yield from torch.split(torch.from_numpy(order), self.config.batch_size)

    def _step(self) -> None:
        """Update everything, then put the prototypes back on the sphere."""
        with torch.no_grad():
            before = self.prototypes.clone()
            self.optimizer.step()
            moved = normalize(self.prototypes, dim=1)
            # Momentum would carry a prototype on after its last member has left.
            self.prototypes.copy_(torch.where(self.has_members[:, None], moved, before))
            self.previous.lerp_(self.prototypes, 1.0 - self.config.ema)

    def _assign(self) -> None:
        """Assign every sample's member to its nearest prototype and take the means."""
        prototypes = self.prototypes.detach()
        self.assignment = nearest(self.member, prototypes)
        n_members = self.assignment.bincount(minlength=len(prototypes))
        self.has_members = n_members > 0
        sums = torch.zeros_like(prototypes).index_add_(0, self.assignment, self.member)
        self.means = sums / n_members.clamp(min=1)[:, None]


def _check(centroids: Floats, member: Floats, choices: Choices, name: str) -> None:
    """Refuse arrays that do not belong together."""
    n, d = len(choices.user), centroids.shape[1]
    if n == 0:
        raise InputError(f"{name} are empty; refinement needs users with past choices")
    for part, array in (
        ("member", member),
        ("query", choices.query),
        ("chosen", choices.chosen),
        ("rejected", choices.rejected),
    ):
        if array.shape != (n, d):
            raise InputError(f"{name}: {part} has shape {array.shape}, expected {(n, d)}")
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            raise InputError(
                f"{name}: {part}[{int(bad.argmax())}] is not finite; embed that text again"
            )
