"""The answer of a judge, read strictly: reasoning, then one JSON object with a score per response.

Nothing is mended or guessed: a judge that does not keep to the form leaves the comparison unscored,
and the benchmark counts it. (Evaluation chains have a parser of their own, `pgenrm.chain`.)
"""

import json
import re

from pgenrm.errors import FormatError
from pgenrm.types import EvaluationChain
from pgenrm.untrusted import without_thoughts

LOWEST, HIGHEST = 1, 10
"""Ends of the scale that the prompts name."""

_LAST_OBJECT = re.compile(r"(?:```(?:json)?\s*)?(?P<object>\{[^{}]*\})\s*(?:```)?\s*\Z")


def read_scores(text: str, n_responses: int) -> EvaluationChain:
    r"""Read an answer as a chain of reasoning and final scores, without a rubric.

    What a model thinks before `</think>` is dropped; a code fence around the object is allowed.

    >>> read_scores('Short is wanted.\n{"response_1": 7, "response_2": 4.5}', 2).stated_scores
    (7.0, 4.5)

    Raises:
        FormatError: the text does not end in such an object, or a key or score is missing, unknown,
            written twice, no number, or off the scale.
    """
    answer = without_thoughts(text)
    found = _LAST_OBJECT.search(answer)
    if found is None:
        raise FormatError("the answer does not end in a JSON object of scores", ("scores",))
    try:
        items = json.loads(found["object"], object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"the object of scores is not valid JSON ({error})", ("scores",)
        ) from error
    wanted = [f"response_{i}" for i in range(1, n_responses + 1)]
    if sorted(name for name, _ in items) != sorted(wanted):
        names = ", ".join(name for name, _ in items)
        raise FormatError(f"scores are given for {names or 'nothing'}, not for {', '.join(wanted)}")
    scores = dict(items)
    for name, score in scores.items():
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not LOWEST <= score <= HIGHEST:
            raise FormatError(f"{name} is {score!r}, not a number from {LOWEST} to {HIGHEST}")
    return EvaluationChain(
        preferences=answer[: found.start()].strip(),
        stated_scores=tuple(scores[name] for name in wanted),
    )
