"""GPO: a transformer reads a user's choices as context and predicts how he would rate a response.

Group Preference Optimization. Trained over many users: part of a user's choices are context, the
others are asked; a new user is adapted to by reading his choices, without a gradient.

Corrected, against the published code: inputs are standardised and taken relative to the mean of
the pair; a flag tells unknown from rejected; the number of known choices varies from none, since
users have few; choices with the same context are never both known and asked; gradients are zeroed
before every step; the loss is that of a choice between two.

A token that says nothing is always part of the context, so that a user without history can be
judged; the published form gets it as well, because this package judges such users.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from pgenrm.errors import MissingExtraError
from pgenrm.methods.recipe import MethodRecipe, Variant, load_recipe
from pgenrm.prototypes.embedder import Embedder
from pgenrm.seeding import rng

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import gaussian_nll_loss
    from torch.nn.utils.rnn import pad_sequence

    from pgenrm.methods.embeddings import Candidates, Histories, Space
    from pgenrm.methods.frozen import FrozenMethod, Validation
    from pgenrm.methods.training import Schedule, batches, preference_loss, train
except ImportError as error:
    raise MissingExtraError("prototypes", "GPO on embeddings") from error


class GpoRecipe(MethodRecipe):
    """Settings of GPO."""

    width: int
    """Of tokens, of feed-forward layers and of the reader's layers."""
    n_reader_layers: int
    """Linear layers that turn an embedding and its label into a token."""
    n_layers: int
    n_heads: int
    min_context: int | None = None
    max_context: int | None = None
    """Published only: the number of known choices is drawn from this range once per batch."""
    min_variance: float | None = None
    """Published only: what the predicted variance is clamped to."""
    learning_rate: float
    weight_decay: float
    n_users_per_batch: int
    n_epochs: int
    patience: int


def gpo(
    embedder: Embedder,
    *,
    variant: Variant | str = Variant.CORRECTED,
    recipe: GpoRecipe | None = None,
    seed: int = 0,
) -> FrozenMethod:
    """Return GPO on these embeddings.

    Args:
        embedder: frozen; the paper's embeds prompt and response together and means over tokens.
        variant: `corrected` or `published`.
        recipe: None takes the shipped one of the variant.
        seed: of initial weights, batches and the split into known and asked choices.
    """
    variant = Variant(variant)
    recipe = recipe or load_recipe(
        GpoRecipe, "gpo" if variant is Variant.CORRECTED else "gpo_published"
    )
    space = Space(embedder, is_standardised=variant is Variant.CORRECTED)
    return FrozenMethod(
        "gpo", Gpo(recipe, variant), space, variant=variant, recipe=recipe, seed=seed
    )


class Gpo:
    """The preference model; what is known of a user are his choices: [n_pairs, 2, d]."""

    def __init__(self, recipe: GpoRecipe, variant: Variant) -> None:
        self.recipe = recipe
        self.variant = variant

    def set_up(self, train_histories: Histories) -> None:
        """Make the network."""
        dimension = train_histories.vectors.shape[1]
        self.network_ = GpoNetwork(dimension, self.recipe, self.variant)

    def fit(self, train_histories: Histories, validation: Validation, seed: int) -> None:
        """Train the network."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network_.parameters(),
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        n_batches = -(-train_histories.n_users // recipe.n_users_per_batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.n_epochs * n_batches)
        draw_loss = (
            self._corrected_loss if self.variant is Variant.CORRECTED else self._published_loss
        )

        def losses(epoch: int) -> Iterator[Tensor]:
            generator = rng("gpo", seed, epoch)
            for rows in batches(train_histories.n_users, recipe.n_users_per_batch, generator):
                yield draw_loss(train_histories.some(rows), generator)

        train(
            self.network_,
            optimizer,
            losses,
            lambda: validation.loss(self),
            Schedule(recipe.n_epochs, recipe.patience),
            name="gpo",
            after_step=cosine.step,
            accumulates=self.variant is Variant.PUBLISHED,
        )

    def _corrected_loss(self, users: Histories, generator: np.random.Generator) -> Tensor:
        share = torch.from_numpy(generator.random((users.n_users, 1), dtype=np.float32))
        is_known = users.present & (users.draw_per_conversation(generator) < share)
        means, _ = self._predict(users, is_known)
        is_asked = users.present & ~is_known
        return (preference_loss(means) * is_asked).sum() / is_asked.sum().clamp(min=1)

    def _published_loss(self, users: Histories, generator: np.random.Generator) -> Tensor:
        recipe = self.recipe
        assert recipe.min_context is not None
        assert recipe.max_context is not None
        assert recipe.min_variance is not None
        n_known = int(generator.integers(recipe.min_context, recipe.max_context + 1))
        draws = torch.from_numpy(generator.random(users.present.shape, dtype=np.float32))
        rank = draws.masked_fill(~users.present, 2.0).argsort(dim=1).argsort(dim=1)
        n_pairs = users.present.sum(dim=1, keepdim=True)
        is_known = users.present & (rank < (n_pairs - 1).clamp(max=n_known))
        means, log_sds = self._predict(users, is_known)
        labels = torch.tensor([1.0, 0.0]).expand_as(means)
        error = gaussian_nll_loss(
            means.softmax(dim=-1),
            labels,
            (2 * log_sds).exp(),
            eps=recipe.min_variance,
            reduction="none",
        )
        is_asked = users.present & ~is_known
        return (error.sum(dim=-1) * is_asked).sum() / users.n_users

    def _predict(self, users: Histories, is_known: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log standard deviations of all pairs' responses, [b, n_pairs, 2]."""
        x = self._relative(users.responses())
        means, log_sds = self.network_(
            x.flatten(1, 2),
            torch.tensor([1.0, -1.0]).repeat(x.shape[1]).expand(len(x), -1),
            is_known.repeat_interleave(2, dim=1),
        )
        return means.view(x.shape[:3]), log_sds.view(x.shape[:3])

    def _relative(self, vectors: Tensor) -> Tensor:
        """Take responses [..., n_responses, d] relative to the mean of what they compete with."""
        if self.variant is Variant.PUBLISHED:
            return vectors
        return vectors - vectors.mean(dim=-2, keepdim=True)

    def know(self, histories: Histories) -> list[Tensor]:
        """Keep the choices as they are: the network reads them with what is asked."""
        x = self._relative(histories.responses())
        return [pairs[present] for pairs, present in zip(x, histories.present, strict=True)]

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Return the predicted means of the candidates."""
        context = pad_sequence(list(known), batch_first=True).flatten(1, 2)
        n_known = torch.tensor([2 * len(pairs) for pairs in known])
        asked = self._relative(candidates.vectors)
        n_asked = asked.shape[1]
        n_tokens = context.shape[1]
        signs = torch.cat([torch.tensor([1.0, -1.0]).repeat(n_tokens // 2), torch.zeros(n_asked)])
        is_known = torch.arange(n_tokens + n_asked) < n_known[:, None]
        means, _ = self.network_(
            torch.cat([context, asked], dim=1), signs.expand(len(known), -1), is_known
        )
        rewards: Tensor = means[:, n_tokens:]
        return rewards


class GpoNetwork(nn.Module):
    """Tokens attend to the known choices only; there are no positions."""

    def __init__(self, dimension: int, recipe: GpoRecipe, variant: Variant) -> None:
        super().__init__()
        width = recipe.width
        self.has_flag = variant is Variant.CORRECTED
        sizes = [dimension + 1 + self.has_flag] + [width] * recipe.n_reader_layers
        self.reader = nn.Sequential(*_layers(sizes))
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, recipe.n_heads, dim_feedforward=width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, recipe.n_layers, enable_nested_tensor=False)
        self.head = nn.Sequential(*_layers([width, width, 2]))

    def forward(self, x: Tensor, signs: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
        """Predict means and log standard deviations.

        Args:
            x: [b, n, d] responses.
            signs: [b, n]; 1 where chosen, -1 where rejected; read only where known.
            is_known: [b, n]; whether a response is context, which all others attend to.

        Returns:
            Two tensors [b, n]; those of context tokens mean nothing.
        """
        if self.has_flag:
            labels = torch.stack([signs * is_known, (~is_known).float()], dim=-1)
        else:  # an unknown response has the label of a rejected one
            labels = ((signs > 0) & is_known).float()[..., None]
        tokens = self.reader(torch.cat([x, labels], dim=-1))
        tokens = torch.cat([self.nothing.expand(len(x), -1, -1), tokens], dim=1)
        is_hidden = torch.cat([torch.zeros(len(x), 1, dtype=torch.bool), ~is_known], dim=1)
        read = self.encoder(tokens, src_key_padding_mask=is_hidden)[:, 1:]
        means, log_sds = self.head(read).unbind(dim=-1)
        return means, log_sds


def _layers(sizes: Sequence[int]) -> Iterator[nn.Module]:
    """Yield linear layers with ReLU between them."""
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        if i:
            yield nn.ReLU()
        yield nn.Linear(n_in, n_out)
