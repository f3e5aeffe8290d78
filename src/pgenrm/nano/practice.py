"""What the bundled judge is trained on before it sees whole tasks: one short exercise per step.

Rows are token ids with a mask of what the loss counts. An exercise either has its own question, or
it is a chain without its prompt, in which everything is counted but what only a prompt can tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from pgenrm.chain import format
from pgenrm.evaluator import ChainRequest
from pgenrm.history import draw_pairs
from pgenrm.nano.steps import (
    MAX_LEANING,
    Steps,
    apart,
    chain,
    has,
    likes,
    listed,
    part_one,
    said,
    signed,
)
from pgenrm.nano.teacher import PosteriorTeacher
from pgenrm.nano.tokenizer import ASSISTANT, END, MAX_CHOICES, USER
from pgenrm.nano.words import POLES, TASTE_NAMES, pole
from pgenrm.prompts import default_template
from pgenrm.seeding import rng
from pgenrm.sim.language import QUERIES, write_response
from pgenrm.sim.tastes import CRITERIA, DESCRIPTIONS, FLAWED, SCENARIOS, WANTED
from pgenrm.sim.world import Choice, Person, Split, World
from pgenrm.types import Comparison

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOLD_BY_PROMPT: Final = ("Chosen:", "Rejected:", "States:", "Scenario:", "Response ")
"""Lines of PART 1 that only a prompt can tell; `Response 1` in PART 2 stands inside the JSON."""


@dataclass(frozen=True)
class Row:
    """A training sequence."""

    input_ids: list[int]
    completion_mask: list[int]
    """1 where the loss counts."""


N_RESPONSES: Final = ((2, 3, 4), (0.74, 0.15, 0.11))
"""How many responses a comparison has, and how often."""
FLAW_SHARE: Final = 0.03
"""Of the responses beyond two that are flawed."""


def comparisons(
    world: World, seed: int, split: Split = Split.TRAIN, n_responses: int | None = None
) -> Iterator[Comparison]:
    """Yield labelled comparisons of a split without end, with up to four responses.

    Responses beyond two have attributes at random; the label is then drawn anew, in proportion to
    exp(weighted attributes), as for two.

    Args:
        world: whose users compare.
        seed: of what is drawn beyond the world.
        split: which comparisons of whom.
        n_responses: of each; None draws the number.
    """
    for person in map(world.person, count()):
        for _, choice, one in world.of_user(person, [split]):
            yield _widened(one, person, choice, seed, n_responses)


def _widened(
    comparison: Comparison, person: Person, choice: Choice, seed: int, n_responses: int | None
) -> Comparison:
    generator = rng(seed, "widened", comparison.id)
    n_drawn = int(generator.choice(N_RESPONSES[0], p=N_RESPONSES[1]))
    n_more = (n_responses or n_drawn) - 2
    if not n_more:
        return comparison
    features = (generator.random((n_more, choice.features.shape[1])) < 0.5).astype(float)
    features[:, FLAWED] = generator.random(n_more) < FLAW_SHARE
    texts = [write_response(QUERIES[choice.query], row, generator) for row in features]
    utility = np.concatenate([choice.features, features]) @ person.weights[choice.scenario]
    shares = np.exp(utility - utility.max())
    return comparison.model_copy(
        update={
            "responses": (*comparison.responses, *texts),
            "label": int(generator.choice(len(utility), p=shares / shares.sum())),
        }
    )


N_CHOICES: Final = ((0, 1, 2, 3, 4, 5, 6), (0.10, 0.14, 0.14, 0.32, 0.12, 0.08, 0.10))
"""How many past choices are shown, and how often."""
HIDDEN_SHARE: Final = 0.5
"""Of the comparisons that hide what the user states, and again of those that hide demographics."""


def varied(one: Comparison, seed: int) -> Comparison:
    """Show more or less of the user, and the responses in any order; the label goes."""
    generator = rng(seed, "varied", one.id)
    n = int(generator.choice(N_CHOICES[0], p=N_CHOICES[1]))
    user = draw_pairs(one.user, n, seed, one.id)
    if generator.random() < HIDDEN_SHARE:
        user = user.model_copy(update={"criteria": (), "self_description": None})
    if generator.random() < HIDDEN_SHARE:
        user = user.model_copy(update={"demographics": {}})
    responses = tuple(one.responses[i] for i in generator.permutation(len(one.responses)))
    return one.model_copy(update={"user": user, "responses": responses, "label": None})


class Encoder:
    """Turns comparisons into rows."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", teacher: PosteriorTeacher, seed: int = 0
    ) -> None:
        """Set up; nothing is computed yet."""
        self._tokenizer = tokenizer
        self._teacher = teacher
        self._seed = seed

    def whole(self, one: Comparison) -> Row:
        """Encode prompt and chain; the loss counts the chain."""
        template = default_template(one.user)
        prompt = template.render(one.user, one.context, one.responses)[-1].content
        return self._asked(prompt, format(chain(self._steps(one))))

    def chain_only(self, one: Comparison) -> Row:
        """Encode the chain without its prompt; what only the prompt can tell is not counted."""
        return self._alone(format(chain(self._steps(one))), TOLD_BY_PROMPT)

    def weighing(self, one: Comparison, generator: np.random.Generator) -> Row:
        """Encode a chain from scenario and leanings on, which are anybody's and not counted."""
        leanings = generator.integers(-MAX_LEANING // 2, MAX_LEANING // 2 + 1, len(TASTE_NAMES))
        steps = replace(self._steps(one), leanings=tuple((2 * leanings + 1).tolist()))
        _, start, rest = format(chain(steps)).rpartition("\nScenario:")
        return self._alone(start + rest, ("Leans to:", *TOLD_BY_PROMPT))

    def guessing(self, one: Comparison, generator: np.random.Generator) -> Row:
        """Encode what is known of a user, and what he may lean to in every scenario."""
        known, _, _ = "\n".join(part_one(self._steps(one))).rpartition("\nScenario:")
        scenarios = generator.permutation(len(SCENARIOS)).tolist()
        guessed = self._teacher.leanings(one.user, scenarios, generator)
        lines = [
            f"Scenario: {SCENARIOS[scenario]}\nLeans to: {signed(levels)}"
            for scenario, levels in zip(scenarios, guessed, strict=True)
        ]
        return self._alone("\n".join([known, *lines]), TOLD_BY_PROMPT)

    def adding(self, generator: np.random.Generator) -> Row:
        """Encode what some choices say and the sums so far; what they say is not counted."""
        lines, so_far = [], np.zeros(len(TASTE_NAMES), int)
        for _ in range(MAX_CHOICES):
            chosen, rejected = generator.integers(0, 2, (2, len(POLES)))
            now = said(likes(chosen, rejected))
            so_far += now
            lines += [f"Says: {signed(now)}", f"So far: {signed(so_far.tolist())}"]
        return self._alone("\n".join(lines), ("Says:",))

    def _alone(self, text: str, told: Sequence[str]) -> Row:
        """Encode what the judge writes; of lines that begin with `told` only that is counted."""
        text += END
        hidden, at = [], 0
        for line in text.splitlines(keepends=True):
            if line.startswith(tuple(told)):
                hidden.append((at + line.index(":") + 1, at + len(line.rstrip())))
            at += len(line)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        counted = [
            int(not any(low <= start and end <= high for low, high in hidden))
            for start, end in encoded["offset_mapping"]
        ]
        return Row(self._ids(ASSISTANT) + encoded["input_ids"], [0, *counted])

    def text(self, one: Comparison) -> Row:
        """Encode the texts of a task as plain text."""
        pair = one.user.history[:1]
        texts = [one.context[-1].content, *one.responses]
        texts += [t for p in pair for t in (p.context[-1].content, p.chosen, p.rejected)]
        ids = self._ids("\n\n".join(texts) + END)
        return Row(ids, [0, *[1] * (len(ids) - 1)])

    def reading(self, one: Comparison) -> Row:
        """Ask what each response has."""
        features = self._steps(one).responses
        answer = "\n".join(f"Response {i}: {listed(has(row))}" for i, row in enumerate(features, 1))
        return self._asked(_shown(one.responses) + "What does each response have?", answer)

    def difference(self, one: Comparison) -> Row:
        """Ask what sets the responses apart."""
        differing = apart(self._steps(one).responses)
        answer = "\n".join(
            f"Sets response {i} apart: {listed([pole(a, s) for a, s in signs])}"
            for i, signs in enumerate(differing, 1)
        )
        return self._asked(_shown(one.responses) + "What sets each response apart?", answer)

    def choice(self, one: Comparison) -> Row:
        """Ask what a past choice says."""
        steps = self._steps(one)
        if not one.user.history:
            return self.reading(one)
        pair, read = one.user.history[-1], steps.choices[-1]
        signs = likes(read.chosen, read.rejected)
        answer = "\n".join(
            (
                f"Chosen: {listed(has(read.chosen))}",
                f"Rejected: {listed(has(read.rejected))}",
                f"Likes: {listed([pole(a, s) for a, s in signs])}",
                f"Dislikes: {listed([pole(a, -s) for a, s in signs])}",
                f"Says: {signed(said(signs))}",
            )
        )
        shown = f"<chosen>\n{pair.chosen}\n</chosen>\n<rejected>\n{pair.rejected}\n</rejected>\n"
        return self._asked(shown + "What does this choice say?", answer)

    def statement(self, generator: np.random.Generator) -> Row:
        """Ask which criterion a sentence states."""
        if generator.random() < 0.6:
            item = int(generator.integers(len(CRITERIA)))
            texts, answer = CRITERIA[item], pole(item // 2, 1 - 2 * (item % 2))
        else:
            item = int(generator.integers(len(DESCRIPTIONS)))
            texts, answer = DESCRIPTIONS[item], f"{TASTE_NAMES[item // 2]} {'+-'[item % 2]}"
        text = texts[int(generator.integers(len(texts)))]
        return self._asked(f"{text}\nWhat does this sentence state?", f"States: {answer}")

    def meeting(self, one: Comparison, generator: np.random.Generator) -> Row:
        """Ask which responses meet a criterion."""
        features = self._steps(one).responses
        a, sign = int(generator.integers(len(WANTED))), int(generator.choice((-1, 1)))
        met = [bool(x) is (sign > 0) for x in features[:, a]]
        answer = "\n".join(f"Response {i}: {'yes' if m else 'no'}" for i, m in enumerate(met, 1))
        return self._asked(f"{_shown(one.responses)}Which meet: {pole(a, sign)}?", answer)

    def _steps(self, one: Comparison) -> Steps:
        request = ChainRequest(
            id=one.id, user=one.user, context=one.context, responses=one.responses
        )
        return self._teacher.steps(request, rng(self._seed, "leanings", one.id))

    def _asked(self, question: str, answer: str) -> Row:
        prompt = self._ids(f"{USER}{question}{ASSISTANT}")
        completion = self._ids(answer + END)
        return Row(prompt + completion, [0] * len(prompt) + [1] * len(completion))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _shown(responses: Sequence[str]) -> str:
    return "".join(
        f"<response_{i}>\n{text}\n</response_{i}>\n\n" for i, text in enumerate(responses, 1)
    )
