"""What the plain judge of the package learns: to answer the prompts of the judges in a benchmark.

It is for its size what an untuned language model is for its own: it answers at once, or after the
short reasoning that the prompt asks for, from whatever the prompt shows of the user. It writes no
evaluation chain: no past choice is counted, and no rubric derived. Its teacher has the same
posterior over the user as the one who writes chains, but tells its mean: there are no hypotheses to
be averaged later.

    Response 1: detail lists
    Response 2: humorous
    Wants here: brief 1 prose 3 serious 2
    Response 1: serious 2                    wishes that it meets, with their sum so far
    Response 2: brief 1 prose 4
    {"response_1": 3.1, "response_2": 7.9}

A response's score is 1 plus nine times its chance to be chosen: by these sums, or without reasoning
by the posterior.

A persona, as SynthesizeMe asks for, is what the user leans to in general.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, Final

import numpy as np
from scipy.special import softmax

from pgenrm.evaluator import ChainRequest
from pgenrm.few_shot import Demonstration, FewShot
from pgenrm.history import draw_pairs
from pgenrm.nano.practice import comparisons, varied
from pgenrm.nano.steps import (
    POINTS_PER_STRENGTH,
    POINTS_PER_WEIGHT,
    apart,
    counted,
    has,
    listed,
    signed,
    strongest,
    wants,
)
from pgenrm.nano.teacher import PosteriorTeacher
from pgenrm.prompts import Template
from pgenrm.seeding import rng
from pgenrm.sim.tastes import SCENARIOS, Array
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Message, Preference, User

SHARES: Final = {"direct": 0.10, "judge": 0.54, "few_shot": 0.26, "persona": 0.10}
"""Of the rows: a judge that knows nobody, one with one kind of signal, SynthesizeMe's, and its
persona."""
SIGNALS: Final = (
    ("", "demographics", "self_description", "criteria", "history"),
    (0.10, 0.10, 0.20, 0.25, 0.35),
)
"""What such a judge is shown of a user, as the rows of the table are, and how often."""
UTILITY_PER_STRENGTH: Final = POINTS_PER_STRENGTH / POINTS_PER_WEIGHT
STRONGEST: Final = 0.2
"""Utility on top for meeting the strongest wish, so that equal sums are no tie."""
N_AVERAGED: Final = 64
"""Particles behind an answer: nearly the mean of all."""
TOLD_SHARE: Final = 0.6
"""Of the prompts of SynthesizeMe's judge, those with a persona."""
MAX_DEMONSTRATIONS: Final = 4
REASONED_SHARE: Final = 0.6
"""Of the demonstrations; of others only the choice is known."""


def rows(world: World, seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Yield prompts with completions, as `SFTTrainer` takes them.

    Args:
        world: whose users are judged for.
        seed: of what is shown, of hypotheses about users, and of forms.
        n: how many rows.
    """
    teacher = PosteriorTeacher(world, n_averaged=N_AVERAGED)
    names = list(SHARES)
    for one in islice(comparisons(world, seed, n_responses=2), n):
        generator = rng(seed, "plain", one.id)
        kind = names[int(generator.choice(len(names), p=list(SHARES.values())))]
        prompt, answer = _WRITERS[kind](varied(one, seed), teacher, generator)
        yield {
            "prompt": [message.model_dump() for message in prompt],
            "completion": [{"role": "assistant", "content": answer}],
        }


_template = cache(Template.load)
_few_shot_template = cache(FewShot.load)
Asked = tuple[tuple[Message, ...], str]


def _direct(one: Comparison, teacher: PosteriorTeacher, generator: np.random.Generator) -> Asked:
    nobody = User(id=one.user.id)
    prompt = _template("judge_direct").render(nobody, one.context, one.responses)
    return prompt, _answer(one, nobody, teacher, generator, is_reasoned=False)


def _judge(one: Comparison, teacher: PosteriorTeacher, generator: np.random.Generator) -> Asked:
    name = SIGNALS[0][int(generator.choice(len(SIGNALS[0]), p=SIGNALS[1]))]
    user = User(id=one.user.id, **({name: getattr(one.user, name)} if name else {}))
    prompt = _template("judge").render(user, one.context, one.responses)
    return prompt, _answer(one, user, teacher, generator)


def _few_shot(one: Comparison, teacher: PosteriorTeacher, generator: np.random.Generator) -> Asked:
    known = one.user.model_copy(update={"criteria": (), "self_description": None})
    n = int(generator.integers(MAX_DEMONSTRATIONS + 1))
    shown = draw_pairs(known, n, int(generator.integers(2**31)), one.id)
    persona = None
    if known.history and generator.random() < TOLD_SHARE:
        persona = _persona_of(known, teacher, generator)
    else:
        known = shown
    user = User(
        id=one.user.id,
        self_description=persona,
        history=_demonstrations(shown.history, teacher, generator),
    )
    prompt = _few_shot_template("judge_persona").render(user, one.context, one.responses)
    return prompt, _answer(one, known, teacher, generator)


def _persona(one: Comparison, teacher: PosteriorTeacher, generator: np.random.Generator) -> Asked:
    history = one.user.history[:MAX_DEMONSTRATIONS]
    user = User(id=one.user.id, history=_demonstrations(history, teacher, generator))
    known = User(id=one.user.id, history=history)
    return _few_shot_template("persona").render(user), _persona_of(known, teacher, generator)


_WRITERS: Final = {"direct": _direct, "judge": _judge, "few_shot": _few_shot, "persona": _persona}


def _persona_of(user: User, teacher: PosteriorTeacher, generator: np.random.Generator) -> str:
    everywhere = teacher.leanings(user, range(len(SCENARIOS)), generator)
    return f"Leans to: {signed(np.rint(np.mean(everywhere, axis=0)).astype(int).tolist())}"


def _demonstrations(
    history: tuple[Preference, ...], teacher: PosteriorTeacher, generator: np.random.Generator
) -> tuple[Demonstration, ...]:
    """Let choices be worked examples; reasoning that misses the choice is left out, as in use."""
    found = []
    for pair in history:
        shown = Demonstration(
            context=pair.context,
            chosen=pair.chosen,
            rejected=pair.rejected,
            is_swapped=bool(generator.random() < 0.5),
        )
        if generator.random() < REASONED_SHARE:
            shown = _reasoned(shown, teacher, generator)
        found.append(shown)
    return tuple(found)


def _reasoned(
    shown: Demonstration, teacher: PosteriorTeacher, generator: np.random.Generator
) -> Demonstration:
    one = Comparison(
        id="demonstration",
        user=User(id="u", history=(_plain(shown),)),
        context=shown.context,
        responses=shown.responses,
    )
    *reasoning, scores = _answer(one, one.user, teacher, generator).splitlines()
    first, second = json.loads(scores).values()
    if (first < second) is not shown.is_swapped:
        return shown
    known = (second, first) if shown.is_swapped else (first, second)
    return shown.model_copy(update={"reasoning": "\n".join(reasoning), "scores": known})


def _plain(shown: Demonstration) -> Preference:
    return Preference(context=shown.context, chosen=shown.chosen, rejected=shown.rejected)


def _answer(
    one: Comparison,
    known: User,
    teacher: PosteriorTeacher,
    generator: np.random.Generator,
    *,
    is_reasoned: bool = True,
) -> str:
    """Write an answer in the form that judges answer in, from what is known of the user."""
    request = ChainRequest(id=one.id, user=known, context=one.context, responses=one.responses)
    steps = teacher.steps(request, generator)
    if not is_reasoned:
        return _scores(teacher.chances(known, steps.scenario, steps.responses))
    wanted = wants(steps.leanings, steps.scenario, [a for a, _ in apart(steps.responses)[0]])
    lines = [f"Response {i}: {listed(has(row))}" for i, row in enumerate(steps.responses, 1)]
    lines.append(f"Wants here: {counted(wanted)}")
    utilities = []
    for i, row in enumerate(steps.responses, 1):
        met = [wish for wish in wanted if bool(row[wish[0]]) is (wish[1] > 0)]
        sums = np.cumsum([strength for *_, strength in met], dtype=int).tolist()
        shown = [(a, sign, total) for (a, sign, _), total in zip(met, sums, strict=True)]
        lines.append(f"Response {i}: {counted(shown)}")
        utility = UTILITY_PER_STRENGTH * sum(strength for *_, strength in met)
        utilities.append(utility + STRONGEST * any(wish in met for wish in strongest(wanted)[:1]))
    return "\n".join([*lines, _scores(softmax(utilities))])


def _scores(chances: Array) -> str:
    numbers = {f"response_{i}": round(1 + 9 * float(p), 1) for i, p in enumerate(chances, 1)}
    return json.dumps(numbers)
