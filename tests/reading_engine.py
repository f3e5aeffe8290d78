"""A language model that really reads its prompt: it judges by the attributes that texts have.

What the prompt tells of a user is taken out of the tags and handed to the attribute evaluator: past
choices and worked examples as history, statements, persona and demographics as criteria. So a
signal moves a verdict exactly if it arrives. Self-descriptions of the simulated world count as the
wishes that go with them there, as a reader of some understanding would take them.
"""

import json
import re
from collections.abc import Sequence

import numpy as np

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.chain import format as format_chain
from pgenrm.engines.scripted import ScriptedEngine
from pgenrm.evaluator import ChainRequest, ChainSample
from pgenrm.sim.tastes import CRITERIA, DESCRIPTION_DIRECTIONS, DESCRIPTION_OF, WANTED
from pgenrm.types import EvaluationChain, Message, Preference, User

N_CHAINS = 4
EVALUATOR = AttributeEvaluator()


def reading_engine(*, learns_from_examples: bool = True) -> ScriptedEngine:
    """Return the engine; without `learns_from_examples` only a persona tells it of the user."""
    return ScriptedEngine(
        lambda request, _: answer(request.messages, learns_from_examples=learns_from_examples)
    )


def answer(messages: Sequence[Message], *, learns_from_examples: bool = True) -> str:
    *before, query = messages
    system = before[0].content if before and before[0].role == "system" else ""
    examples = worked_examples(before)
    if "describe one particular person" in system:
        shown = examples[-1]
        user = User(id="reader", history=tuple(examples))
        return chains(user, shown.context, (shown.chosen, shown.rejected))[0].preferences
    history = past_choices(query.content) + (examples if learns_from_examples else [])
    user = User(id="reader", history=tuple(history), criteria=statements(query.content))
    responses = tuple(tagged(query.content, r"response_\d+"))
    written = chains(user, conversation(query.content), responses)
    if "evaluation chain" in query.content:
        return format_chain(written[0])
    means = np.mean([chain.rubric_scores or () for chain in written], axis=0)
    scores = {f"response_{i}": round(float(s), 2) for i, s in enumerate(means, start=1)}
    reasoning = written[0].preferences + "\n" if "Reason, then" in query.content else ""
    return reasoning + json.dumps(scores)


def chains(
    user: User, context: tuple[Message, ...], responses: tuple[str, ...]
) -> list[EvaluationChain]:
    request = ChainRequest(id="r", user=user, context=context, responses=responses, n=N_CHAINS)
    [found] = EVALUATOR.evaluate([request])
    return [sample.chain for sample in found.samples if isinstance(sample, ChainSample)]


def tagged(text: str, name: str) -> list[str]:
    return [match[2] for match in re.finditer(rf"(?s)<({name})[^>]*>\n(.*?)\n</\1>", text)]


def conversation(text: str) -> tuple[Message, ...]:
    [block] = tagged(text, "conversation")
    turns = re.findall(r'(?s)<turn role="(\w+)">\n(.*?)\n</turn>', block)
    return tuple(Message(role=role, content=content) for role, content in turns)


def past_choices(text: str) -> list[Preference]:
    found = []
    for block in tagged(text, "past_choice"):
        [chosen], [rejected] = tagged(block, "chosen"), tagged(block, "rejected")
        context = conversation(f"<conversation>\n{block}\n</conversation>")
        found.append(Preference(context=context, chosen=chosen, rejected=rejected))
    return found


def worked_examples(messages: Sequence[Message]) -> list[Preference]:
    found = []
    turns = [m for m in messages if m.role != "system"]
    for question, reply in zip(turns[::2], turns[1::2], strict=True):
        scores = json.loads(reply.content[reply.content.rindex("{") :])
        by_score = sorted(scores, key=scores.get, reverse=True)
        texts = [tagged(question.content, name)[0] for name in by_score]
        context = conversation(question.content)
        found.append(Preference(context=context, chosen=texts[0], rejected=texts[-1]))
    return found


def statements(text: str) -> tuple[str, ...]:
    names = ("stated_style", "stated_criterion", "self_description", "persona", "demographics")
    said = [block.partition("\n")[0] for name in names for block in tagged(text, name)]
    meant = [wish for sentence in said for wish in implied(sentence)]
    mattered = re.findall(r"^- (\w+): (\d+)$", "\n".join(tagged(text, "what_mattered")), re.M)
    return (*said, *meant, *(name for name, value in mattered if int(value) > 50))


def implied(sentence: str) -> list[str]:
    """Return the wishes of those who say this of themselves in the simulated world."""
    if sentence not in DESCRIPTION_OF:
        return []
    levels = DESCRIPTION_DIRECTIONS[DESCRIPTION_OF[sentence]][: len(WANTED)]
    return [CRITERIA[2 * i + (level < 0)][0] for i, level in enumerate(levels) if level]
