"""Users of whom only earlier posts are known: LaMP-QA and Personalized RewardBench.

Nobody chose between anything there, so the posts are no history of choices. They are shown as what
the user has said, in the place of a self-description, and say so.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import ConfigDict

from pgenrm.seeding import rng
from pgenrm.types import Id, User, Value

N_POSTS: Final = 3
"""Shown per question, as many as the paper shows history items (table 5)."""
HEADING: Final = "Questions that I asked earlier:"


class Post(Value):
    """An earlier post of a user."""

    model_config = ConfigDict(extra="ignore")

    id: Id
    text: str


def asker(item_id: str, posts: Sequence[Post], seed: int, n_posts: int = N_POSTS) -> User:
    """Return who asks, with posts drawn by (seed, item id), in their order.

    The posts drawn for n are among those drawn for n + 1.
    """
    written = [post.text.strip() for post in posts if post.text.strip()]
    drawn = sorted(rng("posts", seed, item_id).permutation(len(written))[:n_posts].tolist())
    lines = [f"{number}. {written[i]}" for number, i in enumerate(drawn, start=1)]
    return User(id=item_id, self_description="\n\n".join([HEADING, *lines]) if lines else None)
