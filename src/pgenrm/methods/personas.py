"""FT RM + SynthesizeMe: a reward model that is told what was found out about the user."""

from collections.abc import Sequence

from pgenrm.history import gather_users
from pgenrm.methods.protocol import Method
from pgenrm.methods.synthesize_me import SynthesizeMe
from pgenrm.types import Comparison, Judgment, User


class WithPersonas:
    """A reward model and the personas it reads; a `pgenrm.methods.protocol.Method`.

    Personas of training users come from the choices that the model is trained on, as in the
    published runs.
    """

    is_trained = True

    def __init__(self, model: Method, synthesizer: SynthesizeMe, personas: dict[str, str]) -> None:
        """Put them together.

        Args:
            model: made with these `personas`, which it looks up when it needs them.
            synthesizer: finds them out.
            personas: by user id; filled here.
        """
        self.model, self.synthesizer, self.personas = model, synthesizer, personas
        self.name = model.name
        self.version = f"{model.version} {synthesizer.version}"

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Find out about training and validation users, then fine-tune."""
        unlabelled = [c.model_copy(update={"label": None}) for c in validation]
        self._describe(gather_users([*train, *unlabelled]))
        self.model.fit(train, validation)

    def adapt(self, users: Sequence[User]) -> None:
        """Find out about these users from their choices."""
        self._describe(users)
        self.model.adapt(users)

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order."""
        return self.model.score(comparisons)

    def _describe(self, users: Sequence[User]) -> None:
        self.synthesizer.adapt(users)
        for user in users:
            persona = self.synthesizer.personas_[user.id].self_description
            if persona:
                self.personas[user.id] = persona
            else:  # one of other choices is none of these
                self.personas.pop(user.id, None)
