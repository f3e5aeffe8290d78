"""VPL: an encoder turns choices into a latent vector, under which a decoder rewards responses.

Variational Preference Learning. Part of a user's choices are encoded, the others are predicted; a
new user is adapted to by encoding his choices, without a gradient.

Corrected, against the fork that ran on PRISM and Chatbot Arena: what is encoded are choices of the
same user, of other contexts than the predicted ones, as many as chance gives, none included; latent
vectors are normalised in evaluation as in training, where the fork decodes a mean that is shorter
than all the decoder has seen; whole conversations are embedded, standardised; the weights of the
best validation epoch are kept. The published form encodes choices of random users for everybody, so
it knows nothing of the one it judges for.
"""

import math
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
    from torch.nn.functional import normalize, scaled_dot_product_attention

    from pgenrm.methods.embeddings import Candidates, Histories, Space, View
    from pgenrm.methods.frozen import FrozenMethod, Validation
    from pgenrm.methods.training import Schedule, batches, preference_loss, train
except ImportError as error:
    raise MissingExtraError("prototypes", "VPL on embeddings") from error


class VplRecipe(MethodRecipe):
    """Settings of VPL."""

    width: int
    """Of the latent vector and of all layers."""
    slope: float
    """Of LeakyReLU below zero."""
    clamp: float
    """Bound of the latent means and log-variances."""
    kl_weight: float
    kl_ramp_start: float
    """Share of `kl_weight` at the start of a ramp."""
    kl_ramp_steps: int
    """Steps of a cosine ramp to the whole, after which it starts again."""
    n_samples: int | None = None
    """Corrected only: latent vectors that rewards are averaged over; half of them mirror others."""
    n_context: int | None = None
    """Published only: number of choices encoded."""
    learning_rate: float
    weight_decay: float
    warmup_share: float
    """Share of the steps in which the learning rate rises; then it falls as a cosine."""
    batch_size: int
    """Users, or predicted choices in the published form, per step."""
    n_epochs: int
    patience: int | None = None


def vpl(
    embedder: Embedder,
    *,
    variant: Variant | str = Variant.CORRECTED,
    recipe: VplRecipe | None = None,
    seed: int = 0,
) -> FrozenMethod:
    """Return VPL on these embeddings.

    Args:
        embedder: frozen; the public code takes the last token's state of a language model.
        variant: `corrected` or `published`.
        recipe: None takes the shipped one of the variant.
        seed: of initial weights, batches, noise and encoded choices.
    """
    variant = Variant(variant)
    is_corrected = variant is Variant.CORRECTED
    recipe = recipe or load_recipe(VplRecipe, "vpl" if is_corrected else "vpl_published")
    space = Space(
        embedder, View.WHOLE if is_corrected else View.LAST_TURN, is_standardised=is_corrected
    )
    model = Vpl(recipe) if is_corrected else PublishedVpl(recipe, seed)
    return FrozenMethod("vpl", model, space, variant=variant, recipe=recipe, seed=seed)


class Vpl:
    """The preference model; what is known of a user are latent vectors, [n_samples, width]."""

    has_nothing = True

    def __init__(self, recipe: VplRecipe) -> None:
        self.recipe = recipe

    def set_up(self, train_histories: Histories) -> None:
        """Make the networks."""
        dimension = train_histories.vectors.shape[1]
        self.network_ = VplNetwork(dimension, self.recipe, self.has_nothing)

    def fit(self, train_histories: Histories, validation: Validation, seed: int) -> None:
        """Train the networks."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network_.parameters(),
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        n_steps = recipe.n_epochs * self._n_batches(train_histories)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _warm_cosine(step, n_steps, recipe.warmup_share)
        )
        n_done = 0

        def losses(epoch: int) -> Iterator[Tensor]:
            nonlocal n_done
            for loss, mean, log_variance in self._steps(train_histories, rng("vpl", seed, epoch)):
                kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
                yield loss + recipe.kl_weight * _ramp(n_done, recipe) * kl
                n_done += 1

        train(
            self.network_,
            optimizer,
            losses,
            lambda: validation.loss(self),
            Schedule(recipe.n_epochs, recipe.patience),
            name="vpl",
            after_step=schedule.step,
        )

    def _n_batches(self, histories: Histories) -> int:
        return -(-histories.n_users // self.recipe.batch_size)

    def _steps(
        self, histories: Histories, generator: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield for each batch the loss of the predicted choices, latent means, log-variances."""
        for rows in batches(histories.n_users, self.recipe.batch_size, generator):
            users = histories.some(rows)
            share = torch.from_numpy(generator.random((users.n_users, 1), dtype=np.float32))
            is_known = users.present & (users.draw_per_conversation(generator) < share)
            responses = users.responses()
            mean, log_variance = self.network_.encode(responses, is_known)
            latent = _on_sphere(_sampled(mean, log_variance))
            loss = preference_loss(self.network_.decode(responses, latent))
            is_asked = users.present & ~is_known
            yield (loss * is_asked).sum() / is_asked.sum().clamp(min=1), mean, log_variance

    def know(self, histories: Histories) -> list[Tensor]:
        """Encode all choices of each user and draw latent vectors, as the decoder was trained on.

        The same noise serves everybody. Little known, much noise: what is preferred by most wins.
        """
        mean, log_variance = self.network_.encode(histories.responses(), histories.present)
        spread = (0.5 * log_variance).exp()[:, None] * self.network_.noise
        return list(_on_sphere(mean[:, None] + spread))

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Decode the candidates under the users' latent vectors and take the mean of these."""
        latents = torch.stack(list(known))  # [n, n_samples, width]
        n, n_samples, _ = latents.shape
        responses = candidates.vectors[:, None].expand(-1, n_samples, -1, -1)
        rewards = self.network_.decode(
            responses.reshape(n * n_samples, 1, *responses.shape[2:]), latents.flatten(0, 1)
        )
        return rewards.view(n, n_samples, -1).mean(dim=1)


class PublishedVpl(Vpl):
    """The published form: everybody is encoded from choices of random users."""

    has_nothing = False

    def __init__(self, recipe: VplRecipe, seed: int) -> None:
        super().__init__(recipe)
        self._seed = seed

    def set_up(self, train_histories: Histories) -> None:
        """Make the networks; keep the choices that users will be encoded from."""
        self._vectors = train_histories.vectors
        self._pool = train_histories.pairs[train_histories.present]  # [n_choices, 2]
        super().set_up(train_histories)

    def _n_batches(self, histories: Histories) -> int:
        return -(-int(histories.present.sum()) // self.recipe.batch_size)

    def _steps(
        self, histories: Histories, generator: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        pool = self._pool
        for rows in batches(len(pool), self.recipe.batch_size, generator):
            mean, log_variance = self._encode_any(len(rows), generator)
            latent = _on_sphere(_sampled(mean, log_variance))
            asked = histories.vectors[pool[rows]][:, None]
            yield preference_loss(self.network_.decode(asked, latent)).mean(), mean, log_variance

    def know(self, histories: Histories) -> list[Tensor]:
        """Encode choices of random training users, or take the prior's mean without history."""
        latents = []
        for user_id, present in zip(histories.user_ids, histories.present, strict=True):
            mean, _ = self._encode_any(1, rng("vpl context", self._seed, user_id))
            latents.append(mean * present.any())
        return latents

    def _encode_any(self, n: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        assert self.recipe.n_context is not None
        drawn = generator.integers(len(self._pool), size=(n, self.recipe.n_context))
        pairs = self._vectors[self._pool[torch.from_numpy(drawn)]]
        return self.network_.encode(pairs, torch.ones(pairs.shape[:2], dtype=torch.bool))


class VplNetwork(nn.Module):
    """Encoder of a set of choices, and decoder of a response under a latent vector."""

    def __init__(self, dimension: int, recipe: VplRecipe, has_nothing: bool) -> None:
        """Set up the layers.

        Args:
            dimension: of an embedding.
            recipe: of the method.
            has_nothing: whether an entry that says nothing is part of every encoded set, so that
                the set of a user without history can be encoded.
        """
        super().__init__()
        width = recipe.width
        half = torch.randn((recipe.n_samples or 0) // 2, width)
        self.noise: Tensor
        self.register_buffer("noise", torch.cat([half, -half]))  # of latent vectors once learnt
        self.clamp = recipe.clamp
        self.pair = _perceptron([2 * dimension, width, width, width], recipe.slope)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width)) if has_nothing else None
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mean, self.log_variance = nn.Linear(width, width), nn.Linear(width, width)
        self.decoder = _perceptron([dimension + width, width, width, 1], recipe.slope)

    def encode(self, pairs: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
        """Return latent means and log-variances, [b, width] each.

        Args:
            pairs: [b, n, 2, d], the chosen response first.
            is_known: [b, n]; the others are not looked at.
        """
        x = self.pair(pairs.flatten(2))
        if self.nothing is not None:
            x = torch.cat([self.nothing.expand(len(x), -1, -1), x], dim=1)
            is_known = torch.cat([torch.ones(len(x), 1, dtype=torch.bool), is_known], dim=1)
        mixed = scaled_dot_product_attention(
            self.query(x), self.key(x), self.value(x), attn_mask=is_known[:, None]
        )
        share = is_known / is_known.sum(dim=1, keepdim=True)
        read = (mixed * share[:, :, None]).sum(dim=1)
        mean, log_variance = self.mean(read), self.log_variance(read)
        return mean.clamp(-self.clamp, self.clamp), log_variance.clamp(-self.clamp, self.clamp)

    def decode(self, responses: Tensor, latent: Tensor) -> Tensor:
        """Return rewards [b, n, n_responses] of responses [b, n, n_responses, d]."""
        spread = latent[:, None, None].expand(*responses.shape[:3], -1)
        rewards: Tensor = self.decoder(torch.cat([responses, spread], dim=-1))[..., 0]
        return rewards


def _perceptron(sizes: Sequence[int], slope: float) -> nn.Sequential:
    """Return linear layers with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])


def _sampled(mean: Tensor, log_variance: Tensor) -> Tensor:
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def _on_sphere(latent: Tensor) -> Tensor:
    """Bring latent vectors to the length of a typical sample of the prior."""
    return normalize(latent, dim=-1) * math.sqrt(latent.shape[-1])


def _ramp(step: int, recipe: VplRecipe) -> float:
    """Return the share of the KL weight at a step."""
    risen = 0.5 - 0.5 * math.cos(math.pi * (step % recipe.kl_ramp_steps) / recipe.kl_ramp_steps)
    return recipe.kl_ramp_start + (1 - recipe.kl_ramp_start) * risen


def _warm_cosine(step: int, n_steps: int, warmup_share: float) -> float:
    """Return the share of the learning rate at a step."""
    n_warm = warmup_share * n_steps
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - n_warm) / max(1.0, n_steps - n_warm))
