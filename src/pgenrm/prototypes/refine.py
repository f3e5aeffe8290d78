"""History-aware attentive refinement of prototypes (paper, section 3.3): the training loop.

Prototypes move so that their members' past choices come out right, while staying near the mean of
their members and near where they were. `scorer.py` holds the equations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prototypes.draws import draw_others
from pgenrm.prototypes.scorer import PreferenceScorer, objective
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
    lambda_centre: float = 0.1
    """Pull towards the mean of the members. Ours; the paper gives no value. At 1 a prototype hardly
    leaves the mean; at 0.01 it follows the chance of a hundred samples."""
    lambda_trust: float = 0.1
    """Pull towards the moving average of the prototype. Ours, as the centre."""
    n_history: int = 3
    """Past choices per sample. The paper's h."""
    learning_rate: float = 1e-3
    """Of AdamW. Released default."""
    batch_size: int = 256
    """Samples per step. Ours."""
    max_epochs: int = 30
    """Ours."""
    patience: int = 5
    """Stop after so many epochs that do not improve on the best one. Ours."""
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
    """The epoch that the result is from; the last one where there was no validation."""
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
    and members are assigned anew afterwards. A prototype without members stays where it is.

    With validation choices the result is that of the epoch with the highest accuracy on them, at
    equal accuracy the lowest loss; where training never helps, the centroids as given. Loss alone
    would not do: a prototype has length one, so its part of a margin is a difference of cosines,
    and the loss gains more from large margins of the other terms than from right ones.

    Args:
        centroids: [k, d], L2-normalised.
        member: [n, d]; for every choice, the row of the store that it belongs to. A cluster's mean
            therefore counts a row once per choice.
        choices: n samples.
        validation: the same two for held-out users.
        config: settings; the defaults where None.
        progress: is told every epoch.

    Raises:
        InputError: shapes that do not fit, no choices, an embedding with NaN or infinity, or a
            learning rate so high that the loss is not a number any more.
    """
    config = config or RefinementConfig()
    _check(centroids, member, choices, "choices")
    if validation is not None:
        _check(centroids, *validation, "validation choices")
    training = _Training(centroids, member, choices, config)
    epochs: list[Epoch] = []
    best_epoch, best_state = 0, training.state()
    for number in range(config.max_epochs + 1):
        loss, n_reassigned = (None, 0) if number == 0 else training.run_epoch(number)
        checked = (None, None) if validation is None else training.validate(*validation)
        epochs.append(Epoch(number, loss, n_reassigned, *checked))
        if progress is not None:
            progress(epochs[-1])
        if number == 0 or _improves(epochs[-1], epochs[best_epoch]):
            best_epoch, best_state = number, training.state()
        elif number - best_epoch >= config.patience:
            break
    prototypes, weights = best_state
    training.scorer.load_state_dict(weights)
    return Refined(
        prototypes=prototypes.numpy(),
        assignment=_nearest(torch.from_numpy(member), prototypes).numpy(),
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
    samples = _Samples(choices)
    drawn = draw_others(choices.user, n_history, rng("refine-margins", seed))
    with torch.no_grad():
        parts = [
            samples.margins(scorer, torch.from_numpy(prototypes), batch, *drawn)
            for batch in _split(np.arange(len(choices.user)), batch_size)
        ]
    return torch.cat(parts).numpy()


class _Samples:
    """Choices as tensors."""

    def __init__(self, choices: Choices) -> None:
        self.query = torch.from_numpy(choices.query)
        self.difference = torch.from_numpy(choices.chosen - choices.rejected)

    def margins(
        self,
        scorer: PreferenceScorer,
        prototypes: Tensor,
        batch: Ints,
        others: Ints,
        shown: NDArray[np.bool_],
    ) -> Tensor:
        """Return the margins [b, k] of the samples `batch` under all prototypes.

        Args:
            scorer: what to ask.
            prototypes: [k, d].
            batch: [b], indices of samples.
            others: [n, h], the history of every sample as indices.
            shown: [n, h], which of them count.
        """
        distinct, history = np.unique(others[batch], return_inverse=True)
        return scorer.margins(
            prototypes,
            self.query[batch],
            self.difference[batch],
            scorer.read(self.query[distinct], self.difference[distinct]),
            torch.from_numpy(history.reshape(others[batch].shape)),
            torch.from_numpy(shown[batch]),
        )


class _Training:
    """Prototypes and scorer while they are trained."""

    def __init__(
        self, centroids: Floats, member: Floats, choices: Choices, config: RefinementConfig
    ) -> None:
        self.config = config
        self.member = torch.from_numpy(member)
        self.samples = _Samples(choices)
        _, self.user = np.unique(choices.user, return_inverse=True)
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
        drawn = draw_others(self.user, self.config.n_history, generator)
        total = 0.0
        for batch in self._batches(generator):
            loss = objective(
                self.samples.margins(self.scorer, self.prototypes, batch, *drawn),
                self.assignment[batch],
                self.prototypes,
                self.means,
                self.previous,
                lambda_centre=self.config.lambda_centre,
                lambda_trust=self.config.lambda_trust,
            )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._step()
            total += loss.item() * len(batch)
        if not (np.isfinite(total) and self.prototypes.isfinite().all()):
            raise InputError(
                f"the refinement diverged in epoch {epoch}; lower its learning_rate, now "
                f"{self.config.learning_rate}"
            )
        before = self.assignment
        self._assign()
        return total / len(self.member), int((self.assignment != before).sum())

    def validate(self, member: Floats, choices: Choices) -> tuple[float, float]:
        """Return pair loss and accuracy of held-out choices under their nearest prototypes."""
        prototypes = self.prototypes.detach()
        own = _nearest(torch.from_numpy(member), prototypes).numpy()
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

    def _batches(self, generator: np.random.Generator) -> Iterator[Ints]:
        """Shuffle users, not samples: a batch then shares most of its distinct past choices."""
        order = np.argsort(generator.permutation(self.user.max() + 1)[self.user], kind="stable")
        yield from _split(order, self.config.batch_size)

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
        self.assignment = _nearest(self.member, prototypes)
        n_members = self.assignment.bincount(minlength=len(prototypes))
        self.has_members = n_members > 0
        sums = torch.zeros_like(prototypes).index_add_(0, self.assignment, self.member)
        self.means = sums / n_members.clamp(min=1)[:, None]


def _nearest(member: Tensor, prototypes: Tensor) -> Tensor:
    """Return the index [n] of the most similar prototype."""
    return torch.cat([(part @ prototypes.T).argmax(dim=1) for part in torch.split(member, 65_536)])


def _split(indices: Ints, size: int) -> list[Ints]:
    return np.split(indices, range(size, len(indices), size))


def _improves(epoch: Epoch, best: Epoch) -> bool:
    if epoch.validation_accuracy is None or best.validation_accuracy is None:
        return True
    if epoch.validation_accuracy != best.validation_accuracy:
        return epoch.validation_accuracy > best.validation_accuracy
    return (epoch.validation_loss or 0.0) < (best.validation_loss or 0.0)


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
