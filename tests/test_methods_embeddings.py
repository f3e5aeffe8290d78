"""Histories as tensors, the scale of a space, and fitting users' weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.methods.embeddings import Space, View
from pgenrm.methods.user_weights import fit_user_weights
from pgenrm.seeding import rng
from pgenrm.types import Message, Preference, User
from tests.method_cases import MeasuredEmbedder

pytestmark = pytest.mark.local

CONTEXT = (
    Message(role="user", content="Hello"),
    Message(role="assistant", content="Hello. What is it?"),
    Message(role="user", content="How do I boil an egg?"),
)


def user(user_id: str, *choices: tuple[str, str, str]) -> User:
    history = tuple(Preference(context=q, chosen=a, rejected=b) for q, a, b in choices)
    return User(id=user_id, history=history)


USERS = [
    user("a", ("q1", "- one\n- two", "One, two!"), ("q2", "no", "yes"), ("q1", "why?", "- one")),
    user("b"),
    user("c", ("q3", "same", "same"), ("q1", "- one", "Perhaps one, I think.")),
]


def test_a_text_begins_with_the_response_and_goes_back_in_time() -> None:
    texts = {view: view.text(CONTEXT, "Six minutes.") for view in View}
    assert texts[View.RESPONSE] == "assistant: Six minutes."
    assert texts[View.LAST_TURN] == "assistant: Six minutes.\n\nuser: How do I boil an egg?"
    assert texts[View.WHOLE].startswith(texts[View.LAST_TURN] + "\n\nassistant: Hello. What")
    assert texts[View.WHOLE].endswith("user: Hello")


def test_histories_hold_what_users_chose_and_nothing_else() -> None:
    embedder = MeasuredEmbedder()
    histories = Space(embedder, View.RESPONSE, is_standardised=False).histories(USERS)
    assert histories.present.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    for i, person in enumerate(USERS):
        choices = [p for p in person.history if p.is_informative]
        for j, pair in enumerate(choices):
            texts = [View.RESPONSE.text(pair.context, r) for r in (pair.chosen, pair.rejected)]
            assert np.allclose(histories.responses()[i, j], embedder.embed(texts))
    some = histories.some(torch.tensor([2, 1]))
    assert some.user_ids == ("c", "b")
    assert some.present.tolist() == [[True], [False]]
    assert torch.equal(some.responses()[0, 0], histories.responses()[2, 0])


def test_a_space_is_standardised_on_what_it_was_fitted_to() -> None:
    space = Space(MeasuredEmbedder(), has_prompts=True)
    fitted = space.fit(USERS)
    for vectors in (fitted.vectors, fitted.prompt_vectors):
        assert vectors is not None
        assert vectors.mean(dim=0).abs().max() < 1e-4
        varies = vectors.std(dim=0) > 0.1
        assert torch.allclose(vectors.std(dim=0, correction=0)[varies], torch.tensor(1.0))
    again = space.histories(USERS[:1])
    assert torch.allclose(again.responses()[0], fitted.responses()[0], atol=1e-5)
    candidates = space.candidates([USERS[0].history[0].context], [["- one\n- two", "One, two!"]])
    assert torch.allclose(candidates.vectors[0], fitted.responses()[0, 0], atol=1e-5)
    prompts = fitted.prompts()
    assert prompts is not None
    assert candidates.prompts is not None
    assert torch.allclose(candidates.prompts[0], prompts[0, 0], atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_choices_in_one_conversation_are_drawn_together(seed: int) -> None:
    first = USERS[0].history[0]
    answered = Message(role="assistant", content=first.chosen)
    later = (*first.context, answered, Message(role="user", content="And then?"))
    going_on = Preference(context=later, chosen="So.", rejected="Or so.")
    talker = User(id="d", history=(first, USERS[0].history[1], going_on))
    histories = Space(MeasuredEmbedder()).histories([*USERS, talker])
    draws = histories.draw_per_conversation(rng(seed))
    assert draws[3, 0] == draws[3, 2] != draws[3, 1]
    assert draws[0, 0] == draws[0, 2]
    assert draws[0, 0] != draws[0, 1]
    assert draws[0, 0] != draws[2, 0]  # another user's draw is his own


def test_nobody_s_weights_depend_on_others_and_who_chose_nothing_stays_at_the_centre() -> None:
    pulls = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-3.0, 0.5, 1.0]])
    centre = torch.tensor([0.3, -0.2, 0.0])

    def fit(rows: list[int], precision: float = 1.0) -> torch.Tensor:
        return fit_user_weights(
            centre,
            len(rows),
            lambda logits: -(logits * pulls[rows]).sum(dim=1),
            n_steps=400,
            learning_rate=0.05,
            precision=precision,
        )

    together = fit([0, 1, 2])
    assert torch.allclose(together[1], centre)
    assert torch.allclose(together[2], fit([2])[0])
    assert torch.allclose(together, centre + pulls, atol=0.02)
    assert torch.allclose(fit([0], precision=4.0)[0], centre + pulls[0] / 4, atol=0.02)
