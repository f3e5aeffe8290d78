"""SynthesizeMe: a persona and demonstrations learnt for each user, then a judge that is shown both.

For every user, from his past choices alone: bootstrap reasoning with self-verification, persona
induction from the winning reasoning, and demonstration selection for the judge who knows the
persona. All users are worked on at once. Seen and unseen users are treated alike.

Deliberately left out: the instruction for personas that the authors optimised with a prompt
optimiser, for each base model, on data of the benchmark; ours is written by hand. Also the rows of
a user that PersonalRewardBench sets aside to choose among candidates (column `split` = `val`):
`fit` sees those of seen users only, so they would tell more of some users than of others, and they
would escape `+shuffled` and `+flipped`. What is known of a user is the history that he is adapted
with, and it is divided 70:30, as the released package does where a user has no such rows.
"""

from collections.abc import Sequence
from typing import Final

from pgenrm.budget import fit_prompt
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Engine, Sampling
from pgenrm.errors import PromptTooLongError
from pgenrm.few_shot import Demonstration, FewShot
from pgenrm.history import discloses
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.answers import read_scores
from pgenrm.methods.bootstrap import Bootstrap, BootstrapSettings, Search
from pgenrm.methods.judges import JUDGE_SAMPLING, N_ORDERS
from pgenrm.methods.known import judged_as
from pgenrm.methods.versions import version_of
from pgenrm.scaling.aggregate import PaperAggregator
from pgenrm.seeding import derive_seed, rng
from pgenrm.types import Comparison, Judgment, User
from pgenrm.untrusted import without_thoughts

TRAIN_SHARE: Final = 0.7
"""Of a user's choices, the first ones; the others are held out to compare candidates on. The
released package's, for users without validation rows."""


class SynthesizeMe:
    """The judge with learnt personas; a `pgenrm.methods.protocol.Method`.

    Whoever was adapted to is in `personas_`; a user without choices, and one who was never adapted
    to, is judged without persona. Behind a `CachedEngine`, a run that was stopped pays for nothing
    twice.

    Attributes:
        personas_: user id -> a user whose self-description is the persona and whose history are
            the demonstrations, see `pgenrm.few_shot`.
    """

    name = "synthesize-me"
    is_trained = False

    def __init__(
        self,
        engine: Engine,
        settings: BootstrapSettings | None = None,
        *,
        m: int = N_ORDERS,
        sampling: Sampling = JUDGE_SAMPLING,
        seed: int = 0,
    ) -> None:
        """Set up the method; nothing is sent yet.

        Args:
            engine: writes reasoning, personas and answers.
            settings: of the search for demonstrations; None takes the defaults.
            m: answers per comparison, over both presentation orders.
            sampling: how to sample all of it.
            seed: of orders, what is drawn, and sampling.
        """
        self.settings = settings or BootstrapSettings()
        self.seed = seed
        self.personas_: dict[str, User] = {}
        self._engine = engine
        self._evaluator = LanguageModelEvaluator(
            engine, FewShot.load("judge_persona"), sampling, read=read_scores
        )
        self._persona_template = FewShot.load("persona")
        self._judge = PGenRM(self._evaluator, m, aggregator=PaperAggregator(), seed=seed)
        self.version = version_of(
            self._evaluator,
            m=m,
            persona=self._persona_template.version,
            settings=self.settings.model_dump_json(),
        )

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Do nothing: all is learnt from the user's own choices."""

    def adapt(self, users: Sequence[User]) -> None:
        """Learn persona and demonstrations of users, from their histories alone.

        Raises:
            EngineError: the engine cannot be used at all.
        """
        bootstrap = Bootstrap(self._evaluator, self.settings, self.seed)
        searches = [search for user in users if (search := self._search(user)).train]
        bootstrap.run(searches, "reasoning", with_none=False)
        described = self._described(searches)
        bootstrap.run(described, "demonstrations", with_none=True)
        self.personas_ |= {user.id: User(id=user.id) for user in users}
        self.personas_ |= {
            search.user.id: search.user.model_copy(update={"history": search.best})
            for search in described
        }

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order; an answer that cannot be read is a failure in its judgment.

        Raises:
            EngineError: the engine cannot be used at all.
        """
        return judged_as(self._judge, map(self._shown, comparisons), comparisons)

    # ------------------------------------------------------------ one user

    def _shown(self, comparison: Comparison) -> Comparison:
        user = self.personas_.get(comparison.user.id) or User(id=comparison.user.id)
        kept = tuple(p for p in user.history if not discloses(p.context, {comparison.context}))
        shown = user.model_copy(update={"history": kept})
        return comparison.model_copy(update={"user": shown})

    def _search(self, user: User) -> Search:
        """Draw how each choice of a user is shown, and hold out the last ones."""
        generator = rng("synthesize-me", self.seed, user.id)
        choices = tuple(
            Demonstration(
                context=pair.context,
                chosen=pair.chosen,
                rejected=pair.rejected,
                is_swapped=bool(generator.random() < 0.5),
            )
            for pair in user.history
            if pair.is_informative
        )
        n_train = max(1, int(TRAIN_SHARE * len(choices)))
        return Search(User(id=user.id), choices[:n_train], choices[n_train:])

    def _described(self, searches: Sequence[Search]) -> list[Search]:
        """Induce personas; returns searches for the judge who knows them.

        Where none can be had, the user is judged with demonstrations alone.
        """
        prompts = [self._persona_prompt(search) for search in searches]
        answers = iter(
            self._engine.complete([request for request in prompts if request is not None])
        )
        described = []
        for search, prompt in zip(searches, prompts, strict=True):
            persona = None if prompt is None else self._persona(next(answers))
            user = search.user.model_copy(update={"self_description": persona})
            described.append(Search(user, search.train, search.held_out))
        return described

    def _persona_prompt(self, search: Search) -> ChatRequest | None:
        """Ask for a persona; None where not even one choice fits the context window."""
        user = search.user.model_copy(update={"history": search.best})
        try:
            prompt = fit_prompt(
                self._persona_template,
                user,
                count_tokens=self._engine.count_tokens,
                budget_tokens=self._evaluator.budget_tokens,
                min_pairs=1,
            )
        except PromptTooLongError:
            return None
        return ChatRequest(
            messages=prompt.messages,
            sampling=self._evaluator.sampling,
            seed=derive_seed("persona", self.seed, user.id),
            prompt_version=prompt.version,
        )

    def _persona(self, answer: Answer) -> str | None:
        (sample,) = answer.samples
        text = without_thoughts(sample.text).strip() if isinstance(sample, Completion) else ""
        return text or None
