"""What is particular to PAL and LoRe, and to their published forms."""

import pytest
import torch
from torch.nn.functional import normalize

from pgenrm.errors import InputError, TrainingError
from pgenrm.methods.embeddings import Space
from pgenrm.methods.lore import LoreRecipe, lore
from pgenrm.methods.pal import Form, Ideals, PalRecipe, PublishedPalRecipe, pal
from pgenrm.methods.recipe import load_recipe
from tests.method_cases import MeasuredEmbedder, accuracy, scores, shuffled, small_world

pytestmark = pytest.mark.local

MEASURED = MeasuredEmbedder()


@pytest.mark.parametrize("form", ["a", "b"])
def test_pal_rewards_what_lies_near_the_mixed_ideal(form: Form) -> None:
    users = small_world().users[:3]
    histories = Space(MEASURED, has_prompts=form == "b").histories(users)
    torch.manual_seed(0)
    recipe = load_recipe(PalRecipe, f"pal_{form}").model_copy(update={"n_prototypes": 3})
    network = Ideals(histories, recipe, form)
    logits = torch.randn(3, 3)
    found = network.reward(network.place(histories.responses(), histories.prompts()), logits)

    points = normalize(network.maps[0](histories.responses()), dim=-1)
    if form == "a":
        ideals = normalize(network.maps[0](network.prototypes), dim=-1).expand(3, -1, -1)
        mixed = torch.einsum("ukd,uk->ud", ideals, logits.softmax(dim=1))
        ideal = normalize(mixed, dim=-1)[:, None, None]
        expected = -network.log_scale.exp() * (points - ideal).norm(dim=-1)
    else:
        prompts = histories.prompts()
        ideals = torch.stack(
            [normalize(of_prompt(prompts), dim=-1) for of_prompt in list(network.maps)[1:]]
        )
        mixed = torch.einsum("kund,uk->und", ideals, logits.softmax(dim=1))
        ideal = normalize(mixed, dim=-1)[:, :, None]
        expected = network.log_scale.exp() * (points * ideal).sum(dim=-1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_published_pal_remembers_training_users_and_gives_all_others_one_average() -> None:
    data = small_world()
    recipe = load_recipe(PublishedPalRecipe, "pal_a_published")
    method = pal(MEASURED, variant="published", recipe=recipe)
    method.fit(data.train[:240], data.validation[:4])
    before = scores(method, data.test)
    method.adapt(data.users)
    assert scores(method, data.test) == before
    method.adapt(shuffled(data.users))
    assert scores(method, data.test) == before
    seen = data.train[:12]
    as_strangers = scores(method, seen)
    method.adapt([seen[0].user])
    assert scores(method, seen) != as_strangers


def test_there_is_no_published_pal_b() -> None:
    with pytest.raises(InputError, match="untrained layer"):
        pal(MEASURED, "b", variant="published")


def test_lore_of_rank_one_is_the_same_for_everybody() -> None:
    data = small_world()
    recipe = load_recipe(LoreRecipe, "lore").model_copy(update={"rank": 1, "n_steps": 200})
    method = lore(MEASURED, recipe=recipe)
    method.fit(data.train, data.validation)
    before = scores(method, data.test)
    assert 0.55 < accuracy(method, data.test) < 0.8
    method.adapt(data.users)
    assert scores(method, data.test) == before


def test_published_lore_fits_new_users_too() -> None:
    data = small_world()
    method = lore(MEASURED, variant="published")
    method.fit(data.train, data.validation)
    method.adapt(data.users)
    own = accuracy(method, data.test)
    method.adapt(shuffled(data.users))
    assert own > accuracy(method, data.test) + 0.1


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    data = small_world()
    recipe = load_recipe(LoreRecipe, "lore").model_copy(update={"learning_rate": 1e37})
    with pytest.raises(TrainingError, match="use a lower learning rate"):
        lore(MEASURED, recipe=recipe).fit(data.train[:60], data.validation[:4])
