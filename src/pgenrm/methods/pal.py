"""PAL: a user's ideal is a mixture of prototypes; a response is the better, the nearer it lies.

Pluralistic Alignment, form A (an ideal point for all prompts) and form B (an ideal direction that
depends on the prompt). A new user is adapted to by fitting his mixture weights to his choices.

Corrected, against the public scripts that ran on PRISM and Chatbot Arena: the whole conversation is
embedded, standardised; weights go through a softmax; responses and ideals have unit length and the
scale of rewards is learnt; users outside the training set are fitted, with a prior around the
population's weights, where the scripts give all of them one shared average; the weights of the best
validation epoch are kept. Users of the training set are fitted from the history at hand as well.

The published form remembers the weights of its training users and ignores every history, so that
shuffling histories does not change it. It exists for form A only: the prompt-dependent script draws
an untrained layer anew at every call, which leaves nothing to reproduce.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.methods.recipe import MethodRecipe, Variant, load_recipe
from pgenrm.prototypes.embedder import Embedder
from pgenrm.seeding import rng

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import normalize

    from pgenrm.methods.embeddings import Candidates, Histories, Space, View
    from pgenrm.methods.frozen import FrozenMethod, Validation
    from pgenrm.methods.training import Schedule, batches, preference_loss, train
    from pgenrm.methods.user_weights import fit_user_weights
except ImportError as error:
    raise MissingExtraError("prototypes", "PAL on embeddings") from error

Form = Literal["a", "b"]
MIN_SQUARE: Final = 1e-6
"""Of a distance, whose root has no slope at 0."""


class PalRecipe(MethodRecipe):
    """Settings of corrected PAL, both forms."""

    n_prototypes: int
    width: int
    """Of the space that holds responses and ideals."""
    log_scale: float
    """Logarithm of the scale of rewards at the start; it is learnt."""
    user_precision: float
    """Of the normal prior of users' logits around the population's."""
    learning_rate: float
    """Of the maps."""
    weight_decay: float
    """Of the maps."""
    user_learning_rate: float
    """Of prototypes, users' logits and the scale."""
    n_users_per_batch: int
    n_epochs: int
    patience: int
    adaptation_learning_rate: float
    n_adaptation_steps: int


class PublishedPalRecipe(MethodRecipe):
    """Settings of PAL as the public script runs it."""

    n_prototypes: int
    width: int
    learning_rate: float
    batch_size: int
    n_epochs: int


def pal(
    embedder: Embedder,
    form: Form = "a",
    *,
    variant: Variant | str = Variant.CORRECTED,
    recipe: PalRecipe | PublishedPalRecipe | None = None,
    seed: int = 0,
) -> FrozenMethod:
    """Return PAL on these embeddings.

    Args:
        embedder: frozen; the public scripts mean over the tokens of a language model.
        form: `a` or `b`.
        variant: `corrected`, or for form a `published`.
        recipe: None takes the shipped one of form and variant.
        seed: of initial weights and batches.

    Raises:
        InputError: form b is asked for as published.
    """
    variant = Variant(variant)
    if variant is Variant.CORRECTED:
        recipe = recipe or load_recipe(PalRecipe, f"pal_{form}")
        assert isinstance(recipe, PalRecipe)
        space = Space(
            embedder, View.WHOLE if form == "a" else View.RESPONSE, has_prompts=form == "b"
        )
        model = Pal(recipe, form)
        return FrozenMethod(f"pal-{form}", model, space, variant=variant, recipe=recipe, seed=seed)
    if form == "b":
        raise InputError(
            "PAL-B has no published variant: the public script draws an untrained layer at every "
            "call; take variant='corrected', or form 'a'"
        )
    recipe = recipe or load_recipe(PublishedPalRecipe, "pal_a_published")
    assert isinstance(recipe, PublishedPalRecipe)
    space = Space(embedder, View.RESPONSE, is_standardised=False)
    published = PublishedPal(recipe)
    return FrozenMethod("pal-a", published, space, variant=variant, recipe=recipe, seed=seed)


class Pal:
    """The preference model; what is known of a user are his logits over prototypes."""

    def __init__(self, recipe: PalRecipe, form: Form) -> None:
        self.recipe = recipe
        self.form = form

    def set_up(self, train_histories: Histories) -> None:
        """Make maps and prototypes."""
        self.network_ = Ideals(train_histories, self.recipe, self.form)

    def fit(self, train_histories: Histories, validation: Validation, seed: int) -> None:
        """Train maps and prototypes, and with them users' weights."""
        recipe, network = self.recipe, self.network_
        users = nn.Parameter(torch.zeros(train_histories.n_users, recipe.n_prototypes))
        others = [network.prototypes, network.centre, network.log_scale, users]
        optimizer = torch.optim.AdamW(
            [
                {"params": network.maps.parameters(), "weight_decay": recipe.weight_decay},
                {"params": others, "lr": recipe.user_learning_rate},
            ],
            recipe.learning_rate,
            weight_decay=0.0,
            fused=True,
        )

        def losses(epoch: int) -> Iterator[Tensor]:
            generator = rng("pal", seed, epoch)
            for rows in batches(train_histories.n_users, recipe.n_users_per_batch, generator):
                some = train_histories.some(rows)
                placed = network.place(some.responses(), some.prompts())
                rewards = network.reward(placed, network.centre + users[rows])
                misfit = (preference_loss(rewards) * some.present).sum()
                prior = 0.5 * recipe.user_precision * users[rows].square().sum()
                yield (misfit + prior) / some.present.sum()

        train(
            network,
            optimizer,
            losses,
            lambda: validation.loss(self),
            Schedule(recipe.n_epochs, recipe.patience),
            name="pal",
        )

    def know(self, histories: Histories) -> list[Tensor]:
        """Fit the users' logits to their choices."""
        recipe, network = self.recipe, self.network_
        placed = network.place(histories.responses(), histories.prompts())

        def losses(logits: Tensor) -> Tensor:
            misfit = preference_loss(network.reward(placed, logits))
            return (misfit * histories.present).sum(dim=1)

        logits = fit_user_weights(
            network.centre,
            histories.n_users,
            losses,
            n_steps=recipe.n_adaptation_steps,
            learning_rate=recipe.adaptation_learning_rate,
            precision=recipe.user_precision,
        )
        return list(logits)

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Return how near the candidates lie to the users' ideals."""
        prompts = None if candidates.prompts is None else candidates.prompts[:, None]
        placed = self.network_.place(candidates.vectors[:, None], prompts)
        return self.network_.reward(placed, torch.stack(list(known)))[:, 0]


class Placed(NamedTuple):
    """Responses in relation to the prototypes' ideals: all that a mixture of these is judged by."""

    products: Tensor
    """[b, n, n_responses, n_prototypes]; of responses with ideals."""
    gram: Tensor
    """[b, n, n_prototypes, n_prototypes], or [n_prototypes, n_prototypes]; of ideals."""


class Ideals(nn.Module):
    """Maps of responses and prototypes into one space; a user's ideal is a mixture there.

    In form A, prototypes are points of the embedding space that are mapped as responses are; in
    form B each is a map from the prompt.
    """

    def __init__(self, histories: Histories, recipe: PalRecipe, form: Form) -> None:
        super().__init__()
        dimension, n_prototypes = histories.vectors.shape[1], recipe.n_prototypes
        n_maps = 1 if form == "a" else 1 + n_prototypes
        self.form = form
        self.maps = nn.ModuleList(_map(dimension, recipe.width) for _ in range(n_maps))
        n_points = n_prototypes if form == "a" else 0
        rows = torch.randint(len(histories.vectors), (n_points,))
        self.prototypes = nn.Parameter(histories.vectors[rows])
        self.centre = nn.Parameter(torch.zeros(n_prototypes))
        self.log_scale = nn.Parameter(torch.tensor(recipe.log_scale))

    def place(self, responses: Tensor, prompts: Tensor | None) -> Placed:
        """Map responses [b, n, n_responses, d] and, for form B, prompts [b, n, d]."""
        of_responses, *of_prompts = self.maps
        points = normalize(of_responses(responses), dim=-1)
        if self.form == "a":
            ideals = normalize(of_responses(self.prototypes), dim=-1)
        else:
            ideals = torch.stack([of_prompt(prompts) for of_prompt in of_prompts], dim=-2)
            ideals = normalize(ideals, dim=-1)
        turned = ideals.transpose(-1, -2)
        return Placed(points @ turned, ideals @ turned)

    def reward(self, placed: Placed, logits: Tensor) -> Tensor:
        """Return rewards [b, n, n_responses] for users with logits [b, n_prototypes].

        The negative distance to the ideal in form A, the cosine with it in form B, scaled.
        """
        weights = logits.softmax(dim=1)[:, None, :, None]  # [b, 1, n_prototypes, 1]
        square = (weights * (placed.gram @ weights)).sum(dim=-2)  # [b, 1 or n, 1]
        cosines = (placed.products @ weights)[..., 0] / square.sqrt()
        if self.form == "a":
            return -self.log_scale.exp() * (2 - 2 * cosines).clamp(min=MIN_SQUARE).sqrt()
        return self.log_scale.exp() * cosines


class PublishedPal:
    """The published form; what is known of a user are his weights, if he was trained on."""

    def __init__(self, recipe: PublishedPalRecipe) -> None:
        self.recipe = recipe

    def set_up(self, train_histories: Histories) -> None:
        """Make map, prototypes and users' weights."""
        self.network_ = Remembered(train_histories, self.recipe)
        self.rows_ = {user_id: i for i, user_id in enumerate(train_histories.user_ids)}

    def fit(self, train_histories: Histories, validation: Validation, seed: int) -> None:
        """Train map, prototypes and users' weights to the end."""
        recipe, network = self.recipe, self.network_
        pairs = train_histories.pairs[train_histories.present]  # [n_choices, 2]
        owners = train_histories.present.nonzero()[:, 0]

        def losses(epoch: int) -> Iterator[Tensor]:
            for some in batches(len(pairs), recipe.batch_size, rng("pal", seed, epoch)):
                vectors = train_histories.vectors[pairs[some]]
                yield preference_loss(network(vectors, network.weights[owners[some]])).mean()

        train(
            network,
            torch.optim.Adam(network.parameters(), recipe.learning_rate, fused=True),
            losses,
            lambda: validation.loss(self),
            Schedule(recipe.n_epochs, None),
            name="pal",
        )

    def know(self, histories: Histories) -> list[Tensor]:
        """Recall the weights of training users; everybody else gets their mean."""
        weights = self.network_.weights.detach()
        mean = weights.mean(dim=0)
        rows = [self.rows_.get(user_id) for user_id in histories.user_ids]
        return [mean if row is None else weights[row] for row in rows]

    def reward(self, known: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Return the products of mapped candidates with the users' mixed prototypes."""
        rewards: Tensor = self.network_(candidates.vectors, torch.stack(list(known)))
        return rewards


class Remembered(nn.Module):
    """A map, prototypes, and every training user's weights over them."""

    def __init__(self, histories: Histories, recipe: PublishedPalRecipe) -> None:
        super().__init__()
        self.map = _map(histories.vectors.shape[1], recipe.width)
        self.prototypes = nn.Parameter(torch.randn(recipe.n_prototypes, recipe.width))
        self.weights = nn.Parameter(torch.rand(histories.n_users, recipe.n_prototypes))

    def forward(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """Return rewards [n, n_responses] of vectors [n, n_responses, d] under weights [n, k]."""
        return torch.einsum("nrd,nd->nr", self.map(vectors), weights @ self.prototypes)


def _map(dimension: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dimension, width), nn.ReLU(), nn.Linear(width, width))
