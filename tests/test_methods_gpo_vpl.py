"""What is particular to GPO and VPL, and to their published forms."""

import numpy as np
import pytest
import torch
from torch import nn

from pgenrm.methods.gpo import Gpo, GpoNetwork, GpoRecipe, gpo
from pgenrm.methods.recipe import Variant, load_recipe
from pgenrm.methods.training import Schedule, preference_loss, train
from pgenrm.methods.vpl import Vpl, VplNetwork, VplRecipe, vpl
from tests.method_cases import MeasuredEmbedder, accuracy, scores, shuffled, small_world

pytestmark = pytest.mark.local

SMALL_GPO = {"width": 16, "n_layers": 2, "n_epochs": 2, "n_users_per_batch": 4}


def gpo_network(variant: Variant = Variant.CORRECTED) -> GpoNetwork:
    name = "gpo" if variant is Variant.CORRECTED else "gpo_published"
    recipe = load_recipe(GpoRecipe, name).model_copy(update=SMALL_GPO)
    torch.manual_seed(0)
    return GpoNetwork(5, recipe, variant)


@pytest.mark.parametrize("variant", list(Variant))
def test_gpo_looks_at_known_choices_only_in_any_order_and_not_at_unknown_labels(
    variant: Variant,
) -> None:
    network = gpo_network(variant)
    x = torch.randn(1, 6, 5)
    signs = torch.tensor([[1.0, -1, 1, -1, 1, -1]])
    is_known = torch.tensor([[True, True, True, True, False, False]])
    means, _ = network(x, signs, is_known)

    unknown = x.clone()
    unknown[0, 5] += 1
    assert torch.allclose(network(unknown, signs, is_known)[0][0, 4], means[0, 4])
    hidden_sign = torch.tensor([[1.0, -1, 1, -1, -1, 1]])
    assert torch.allclose(network(x, hidden_sign, is_known)[0][0, 4:], means[0, 4:])
    order = [2, 3, 0, 1, 4, 5]
    turned, _ = network(x[:, order], signs[:, order], is_known)
    assert torch.allclose(turned[0, 4:], means[0, 4:], atol=1e-5)
    known = x.clone()
    known[0, 0] += 1
    assert not torch.allclose(network(known, signs, is_known)[0][0, 4], means[0, 4], atol=1e-4)
    with torch.no_grad():  # torch then takes another path
        assert torch.allclose(network.eval()(x, signs, is_known)[0], means, atol=1e-5)


def test_gpo_tells_unknown_from_rejected_only_when_corrected() -> None:
    x, signs = torch.randn(1, 2, 5), torch.tensor([[-1.0, -1.0]])
    differs = {}
    for variant in Variant:
        network = gpo_network(variant)
        read: list[torch.Tensor] = []
        network.reader.register_forward_pre_hook(lambda _, args, read=read: read.append(args[0]))
        network(x, signs, torch.tensor([[True, False]]))
        differs[variant] = bool((read[0][0, 0, 5:] != read[0][0, 1, 5:]).any())
    assert differs == {Variant.CORRECTED: True, Variant.PUBLISHED: False}


def test_published_gpo_knows_as_many_choices_of_everybody_and_asks_the_others() -> None:
    data = small_world()
    recipe = load_recipe(GpoRecipe, "gpo_published").model_copy(
        update=SMALL_GPO | {"min_context": 3, "max_context": 3}
    )
    method = gpo(MeasuredEmbedder(), variant="published", recipe=recipe)
    method.fit(data.train[:120], data.validation[:10])
    model = method.model
    assert isinstance(model, Gpo)
    known: list[torch.Tensor] = []
    model.network_.register_forward_pre_hook(lambda _, args: known.append(args[2]))
    users = method.space.histories([c.user for c in data.test[:4]])
    model._published_loss(users, np.random.default_rng(0))
    assert known[0].sum(dim=1).tolist() == [6, 6, 6, 6]  # two responses each
    method.adapt(data.users)
    assert 0.3 < accuracy(method, data.test) < 0.8


def test_vpl_s_decoder_is_given_latent_vectors_of_one_length_in_evaluation_too() -> None:
    data = small_world()
    recipe = load_recipe(VplRecipe, "vpl").model_copy(update={"width": 16, "n_epochs": 1})
    method = vpl(MeasuredEmbedder(), recipe=recipe)
    method.fit(data.train[:60], data.validation[:4])
    assert isinstance(method.model, Vpl)
    for n_pairs in (0, 1, 8):
        users = [u.model_copy(update={"history": u.history[:n_pairs]}) for u in data.users[:3]]
        known = torch.stack(method.model.know(method.space.histories(users)))
        assert known.shape == (3, recipe.n_samples, 16)
        assert torch.allclose(known.norm(dim=2), torch.tensor(4.0))


def test_vpl_encodes_a_set() -> None:
    torch.manual_seed(0)
    recipe = load_recipe(VplRecipe, "vpl").model_copy(update={"width": 8})
    network = VplNetwork(5, recipe, has_nothing=True)
    pairs = torch.randn(1, 4, 2, 5)
    is_known = torch.tensor([[True, True, True, False]])
    mean, log_variance = network.encode(pairs, is_known)
    assert mean.abs().max() <= recipe.clamp
    assert log_variance.abs().max() <= recipe.clamp
    order = [1, 2, 0, 3]
    assert torch.allclose(network.encode(pairs[:, order], is_known)[0], mean, atol=1e-6)
    padded = pairs.clone()
    padded[0, 3] = 9.0
    assert torch.equal(network.encode(padded, is_known)[0], mean)
    swapped = network.encode(pairs.flip(2), is_known)[0]
    assert not torch.allclose(swapped, mean, atol=1e-3)


def test_published_vpl_does_not_look_at_the_user() -> None:
    data = small_world()
    size = {"width": 8, "n_epochs": 1}
    recipe = load_recipe(VplRecipe, "vpl_published").model_copy(update=size)
    method = vpl(MeasuredEmbedder(), variant="published", recipe=recipe)
    method.fit(data.train[:240], data.validation[:4])
    unknown = scores(method, data.test)
    method.adapt(data.users)
    known = scores(method, data.test)
    method.adapt(shuffled(data.users))
    assert scores(method, data.test) == known
    assert known != unknown


def test_training_keeps_the_best_epoch_and_stops() -> None:
    network = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    weights: list[float] = []

    def losses(epoch: int):  # type: ignore[no-untyped-def]
        yield -network.weight.sum()  # the weight grows by one per epoch

    def validation_loss() -> float:
        weights.append(network.weight.item())
        return abs(weights[-1] - 3.0)

    with torch.no_grad():
        network.weight.zero_()
    train(network, optimizer, losses, validation_loss, Schedule(9, 2), name="toy")
    assert weights == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert network.weight.item() == 3.0
    assert not network.training


def test_the_preference_loss_is_that_of_a_choice() -> None:
    rewards = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    expected = [-np.log(1 / (1 + np.exp(-1))), np.log(2)]
    assert np.allclose(preference_loss(rewards).numpy(), expected)
