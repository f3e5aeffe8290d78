"""Worked examples: past choices as earlier turns of a chat, answered as a judge should answer.

In place of a fitted prompt program, as SynthesizeMe has it, a persona and its demonstrations are a
`User`: the persona is his self-description, the demonstrations are his history. So whatever makes
prompts fit a context window leaves out the oldest demonstrations first.
"""

import json
from collections.abc import Sequence
from functools import cache

from pgenrm.prompts import Template
from pgenrm.types import Message, Preference, User

PREFERRED, OTHER = 8, 3
"""Scores in the answer of a demonstration without reasoning, of which only the choice is known."""


class Demonstration(Preference):
    """A past choice together with an answer that predicts it."""

    is_swapped: bool = False
    """Whether the rejected response is shown first."""
    reasoning: str = ""
    """Of a judge who predicted the choice; empty where only the choice is known."""
    scores: tuple[float, float] = (PREFERRED, OTHER)
    """Of the chosen and the rejected response."""

    @property
    def responses(self) -> tuple[str, str]:
        """As they are shown."""
        return (self.rejected, self.chosen) if self.is_swapped else (self.chosen, self.rejected)

    @property
    def answer(self) -> str:
        """What a judge should write, in the form that `pgenrm.methods.answers` reads."""
        first, second = self.scores[::-1] if self.is_swapped else self.scores
        scores = json.dumps({"response_1": first, "response_2": second})
        return f"{self.reasoning}\n{scores}" if self.reasoning else scores


class FewShot(Template):
    """A template whose user's demonstrations are earlier turns of the chat.

    The questions of these turns are rendered by `judge_persona`, without the persona.
    """

    def render(
        self, user: User, context: Sequence[Message] = (), responses: Sequence[str] = ()
    ) -> tuple[Message, ...]:
        """Render system message, demonstrations and query; a plain past choice is no demonstration.

        See `Template.render`.
        """
        questions = _questions()
        turns: list[Message] = []
        for shown in user.history:
            if isinstance(shown, Demonstration):
                *_, question = questions.render(User(id=user.id), shown.context, shown.responses)
                answer = self.neutralise(questions.neutralise(shown.answer))
                turns += [question, Message(role="assistant", content=answer)]
        described = user.model_copy(update={"history": ()})
        *system, query = super().render(described, context, responses)
        return (*system, *turns, query)


@cache
def _questions() -> Template:
    return Template.load("judge_persona")
