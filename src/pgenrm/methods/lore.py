"""LoRe: a user's reward is a mixture of few linear rewards that all users share.

Low-rank reward modelling. Directions V and users' mixture weights are learnt together; for a new
user only his weights are fitted to his choices.

Corrected, against the published code: embeddings are standardised; the directions start at, and are
drawn towards, a population direction that was trained for the purpose, where the published code
took a column of an unrelated layer; users' weights are drawn towards the population's, in training
and for new users alike; the weights of the best validation epoch are kept. Users of the training
set are fitted from the history at hand too, not remembered.

Rank 1 is a linear Bradley-Terry model for everybody.
"""

import math
from collections.abc import Iterator, Sequence

from pgenrm.errors import MissingExtraError
from pgenrm.methods.recipe import MethodRecipe, Variant, load_recipe
from pgenrm.prototypes.embedder import Embedder

try:
    import torch
    from torch import Tensor, nn

    from pgenrm.methods.embeddings import Candidates, Histories, Space
    from pgenrm.methods.frozen import FrozenMethod, Validation
    from pgenrm.methods.training import Schedule, train
    from pgenrm.methods.user_weights import fit_user_weights
except ImportError as error:
    raise MissingExtraError("prototypes", "LoRe on embeddings") from error


class LoreRecipe(MethodRecipe):
    """Settings of LoRe."""

    rank: int
    """Number of directions; 1 knows no users."""
    divisor: float
    """Of the rewards: keeps them small where directions start at random."""
    spread: float
    """How far directions start from the population's, as a share of its length."""
    reference_weight: float
    """Of the mean squared distance of directions to the population's, against the mean loss."""
    user_precision: float
    """Of the normal prior of users' logits around the population's; 0 for none."""
    learning_rate: float
    n_steps: int
    """Over all users at once."""
    n_steps_per_check: int
    patience: int | None = None
    """Checks on validation comparisons without a better one after which training ends."""
    adaptation_learning_rate: float
    n_adaptation_steps: int


def lore(
    embedder: Embedder,
    *,
    variant: Variant | str = Variant.CORRECTED,
    recipe: LoreRecipe | None = None,
    seed: int = 0,
) -> FrozenMethod:
    """Return LoRe on these embeddings.

    Args:
        embedder: frozen; the public code takes the last token's state of a reward model.
        variant: `corrected` or `published`.
        recipe: None takes the shipped one of the variant.
        seed: of where directions start.
    """
    variant = Variant(variant)
    is_corrected = variant is Variant.CORRECTED
    recipe = recipe or load_recipe(LoreRecipe, "lore" if is_corrected else "lore_published")
    space = Space(embedder, is_standardised=is_corrected)
    model = Lore(recipe, variant)
    return FrozenMethod("lore", model, space, variant=variant, recipe=recipe, seed=seed)


class Lore:
    """The preference model; what is known of a user is his reward's direction, [d]."""

    def __init__(self, recipe: LoreRecipe, variant: Variant) -> None:
        self.recipe = recipe
        self.variant = variant

    def set_up(self, train_histories: Histories) -> None:
        """Make directions that point nowhere yet."""
        shape = train_histories.vectors.shape[1], self.recipe.rank
        self.network_ = Directions(torch.zeros(shape), train_histories.n_users)

    def fit(self, train_histories: Histories, validation: Validation, seed: int) -> None:
        """Train the directions, in the corrected form after that of the population."""
        dimension, n_users = train_histories.vectors.shape[1], train_histories.n_users
        rank, spread = self.recipe.rank, self.recipe.spread
        if self.variant is Variant.PUBLISHED:
            start = torch.randn(dimension, rank)
            directions = Directions(start, n_users, is_centred=False)
            self._train(directions, None, train_histories, validation)
            return
        self._train(
            Directions(torch.zeros(dimension, 1), n_users), None, train_histories, validation
        )
        if rank == 1:
            return
        reference = self.network_.vectors.detach()
        scale = spread * float(reference.norm()) / math.sqrt(dimension)
        start = reference + scale * torch.randn(dimension, rank)
        self._train(Directions(start, n_users), reference, train_histories, validation)

    def _train(
        self,
        directions: "Directions",
        reference: Tensor | None,
        histories: Histories,
        validation: Validation,
    ) -> None:
        recipe = self.recipe
        self.network_ = directions
        pairs = histories.responses()
        differences = (pairs[:, :, 0] - pairs[:, :, 1])[histories.present]  # [n_choices, d]
        owners = histories.present.nonzero()[:, 0]
        share = 1 / len(differences)
        per_user = 1 / (histories.n_users * histories.present.sum(dim=1))[owners]

        def losses(epoch: int) -> Iterator[Tensor]:
            for _ in range(recipe.n_steps_per_check):
                margins = directions.margins(
                    differences, directions.logits()[owners], recipe.divisor
                )
                misfit = nn.functional.softplus(-margins)
                if self.variant is Variant.PUBLISHED:
                    yield (misfit * per_user).sum()
                    continue
                prior = 0.5 * recipe.user_precision * directions.users.square().sum()
                loss = share * (misfit.sum() + prior)
                if reference is not None:
                    strayed = (directions.vectors - reference).square().mean()
                    loss = loss + recipe.reference_weight * strayed
                yield loss

        train(
            directions,
            torch.optim.Adam(directions.parameters(), recipe.learning_rate),
            losses,
            lambda: validation.loss(self),
            Schedule(-(-recipe.n_steps // recipe.n_steps_per_check), recipe.patience),
            name="lore",
        )

    def know(self, histories: Histories) -> list[Tensor]:
        """Fit the users' weights to their choices and return their directions."""
        recipe, directions = self.recipe, self.network_
        pairs = histories.responses()
        parts = (pairs[:, :, 0] - pairs[:, :, 1]) @ directions.vectors / recipe.divisor

        def losses(logits: Tensor) -> Tensor:
            margins = (parts * logits.softmax(dim=1)[:, None]).sum(dim=2)  # [n_users, n_pairs]
            return (nn.functional.softplus(-margins) * histories.present).sum(dim=1)

        logits = fit_user_weights(
            directions.centre,
            histories.n_users,
            losses,
            n_steps=recipe.n_adaptation_steps if directions.rank > 1 else 0,
            learning_rate=recipe.adaptation_learning_rate,
            precision=recipe.user_precision,
        )
        return list(logits.softmax(dim=1) @ directions.vectors.T / recipe.divisor)

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Return how far the candidates lie in the users' directions."""
        return torch.einsum("nrd,nd->nr", candidates.vectors, torch.stack(list(known)))


class Directions(nn.Module):
    """Shared directions, and every training user's weights over them."""

    def __init__(self, start: Tensor, n_users: int, *, is_centred: bool = True) -> None:
        """Start with the same weights for everybody.

        Args:
            start: the directions, [d, rank].
            n_users: training users.
            is_centred: whether what users have in common is learnt apart, for unseen ones to start
                from; the published form has no such thing.
        """
        super().__init__()
        self.rank = start.shape[1]
        self.vectors = nn.Parameter(start.clone())
        self.centre = nn.Parameter(torch.zeros(self.rank), requires_grad=is_centred)
        self.users = nn.Parameter(torch.zeros(n_users, self.rank))

    def logits(self) -> Tensor:
        """Return the users' logits, [n_users, rank]."""
        return self.centre + self.users

    def margins(self, differences: Tensor, logits: Tensor, divisor: float) -> Tensor:
        """Return the margins [n] of choices with these differences [n, d] and logits [n, rank]."""
        return (differences @ self.vectors * logits.softmax(dim=1)).sum(dim=1) / divisor
