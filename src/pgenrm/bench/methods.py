"""Which methods there are, and how each is made from its name.

A name may end in `+shuffled` (every user is judged as somebody else) or `+flipped` (his choices are
turned round), see `pgenrm.methods.altered`. What a method needs is imported when it is made.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.bench.rows import place_of
from pgenrm.bench.run import Task
from pgenrm.data.dataset import TRAIN, Dataset
from pgenrm.engines.cached import CachedEngine, Usage
from pgenrm.engines.protocol import Sampling
from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.altered import FlippedHistory, ShuffledUsers
from pgenrm.methods.controls import RULES, BayesObserver, Fixed, Oracle
from pgenrm.methods.judges import JUDGE_SAMPLING, N_HISTORY, ROWS, Judge
from pgenrm.methods.personas import WithPersonas
from pgenrm.methods.pgenrm import VARIANTS, Personalised, Scaling
from pgenrm.methods.protocol import Method
from pgenrm.methods.recipe import load_recipe
from pgenrm.methods.synthesize_me import SynthesizeMe
from pgenrm.prototypes.embedder import Embedder, SentenceTransformerEmbedder
from pgenrm.prototypes.vector_cache import VectorCache
from pgenrm.sim.world import World

if TYPE_CHECKING:
    from pgenrm.methods.frozen import FrozenMethod

ALTERED: Final = ("shuffled", "flipped")
ATTRIBUTES: Final = "attributes"
REWARD_RECIPE: Final = "reward_model"
SCALING: Final = Scaling(m=8)
"""Of the attribute evaluator as a control."""


class MethodOptions(NamedTuple):
    """What methods are made with. Sent to workers, so everything in it can be pickled."""

    build: Callable[[Any], Evaluator]
    """Makes the evaluator of judges and of P-GenRM from `model`."""
    model: Hashable
    has_engine: bool
    """Whether that evaluator is a language model, which judges need."""
    embedder: str
    """A sentence-transformers model, for prototypes and for methods on frozen embeddings."""
    vectors: Path
    """Where embedded texts are kept."""
    models: Path
    """Where what was learnt is kept: reward models, and weights of methods on embeddings."""
    embed_dtype: str | None = None
    """As in `SentenceTransformerEmbedder`."""
    reward_base: str | None = None
    """Directory, or `owner/model@commit` on the hub, of what reward models are fine-tuned from."""
    reward_recipe: str = REWARD_RECIPE
    """A shipped recipe of reward models, or a file."""
    n_history: int | None = None
    """Past choices that judges see; None leaves each method its own, and the paper's 3."""
    n_calibration: int | None = None
    """Most comparisons that P-GenRM is calibrated on; None leaves each method its own."""


class _Parts:
    """What a method is put together from, each part made when it is needed."""

    def __init__(self, options: MethodOptions, seed: int, dataset: Dataset) -> None:
        self.options, self.seed, self.dataset = options, seed, dataset

    @property
    def evaluator(self) -> Evaluator:
        return _evaluator(self.options.build, self.options.model)

    @property
    def language_model(self) -> LanguageModelEvaluator:
        evaluator = self.evaluator
        assert isinstance(evaluator, LanguageModelEvaluator)  # as `_why_not` has seen to
        return evaluator

    @property
    def judge_sampling(self) -> Sampling:
        """As judges sample, with room for an answer as the model has it."""
        max_tokens = self.language_model.sampling.max_tokens
        return JUDGE_SAMPLING.model_copy(update={"max_tokens": max_tokens})

    @property
    def embedder(self) -> Embedder:
        return embedder_of(self.options)

    @property
    def embedder_of_analyses(self) -> Embedder:
        """Takes one text at a time: those beside it would move the last digits of its vector.

        It keeps none: a form of P-GenRM that found what another one has embedded would seem to cost
        less than it does.
        """
        options = self.options
        return _embedder(options.embedder, options.embed_dtype, options.vectors, keeps=False)

    @property
    def world(self) -> World:
        if self.dataset.truth is None:
            raise InputError(f"the truth about {self.dataset.name} is not known")
        return self.dataset.truth

    def n_history(self, own: int | None) -> int | None:
        """Return how many past choices are shown, in place of the method's own number."""
        return own if self.options.n_history is None else self.options.n_history


@cache
def _evaluator(build: Callable[[Any], Evaluator], model: Hashable) -> Evaluator:
    return build(model)


def usage_of(options: MethodOptions) -> Usage:
    """Return what the language model of this process was asked so far, where it is cached."""
    if not _evaluator.cache_info().currsize:
        return Usage()
    engine = getattr(_evaluator(options.build, options.model), "engine", None)
    return engine.usage if isinstance(engine, CachedEngine) else Usage()


def embedder_of(options: MethodOptions) -> Embedder:
    """Return the embedder, one for all methods of a process."""
    return _embedder(options.embedder, options.embed_dtype, options.vectors)


@cache
def _embedder(model: str, dtype: str | None, vectors: Path, *, keeps: bool = True) -> Embedder:
    batch_size = 32 if keeps else 1
    embedder = SentenceTransformerEmbedder(model, dtype=dtype, batch_size=batch_size, cache=vectors)
    if not keeps:
        embedder.cache = _EmbeddedAhead(vectors)
    return embedder


class _EmbeddedAhead(VectorCache):
    """Vectors of the texts of the data, to which none is added."""

    def store(self, model: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep nothing."""


class _Maker(NamedTuple):
    make: Callable[[str, _Parts], Method]
    needs_engine: bool = False
    needs_reward_base: bool = False
    needs_training: bool = False
    needs_truth: bool = False
    is_frozen: bool = False
    """Whether it learns on frozen embeddings of texts."""
    asks_neighbours: bool = False
    """Whether it learns prototypes, from embeddings of analyses and of choices."""


def _judge(name: str, parts: _Parts) -> Method:
    return Judge(
        name,
        parts.language_model.engine,
        n_history=parts.n_history(N_HISTORY),
        sampling=parts.judge_sampling,
        seed=parts.seed,
    )


def _synthesize_me(_: str, parts: _Parts) -> SynthesizeMe:
    engine = parts.language_model.engine
    return SynthesizeMe(engine, sampling=parts.judge_sampling, seed=parts.seed)


def _pgenrm(name: str, parts: _Parts) -> Method:
    scaling = _scaling(VARIANTS[name], parts)
    embedder = parts.embedder_of_analyses if scaling.n else None
    return Personalised(name, parts.evaluator, scaling, embedder=embedder, seed=parts.seed)


def _scaling(scaling: Scaling, parts: _Parts) -> Scaling:
    n_calibration = parts.options.n_calibration or scaling.n_calibration
    n_history = parts.n_history(scaling.n_history)
    return scaling.model_copy(update={"n_history": n_history, "n_calibration": n_calibration})


def _attributes(name: str, parts: _Parts) -> Method:
    scaling = _scaling(SCALING, parts)
    return Personalised(name, AttributeEvaluator(), scaling, seed=parts.seed)


def _reward_model(name: str, parts: _Parts) -> Method:
    from pgenrm.methods.reward_model import RewardModel, RewardModelRecipe

    folder = parts.options.models / f"{name}.seed{parts.seed}"
    base = str(parts.options.reward_base)
    recipe = load_recipe(RewardModelRecipe, parts.options.reward_recipe)
    if name == "reward-model":
        return RewardModel(base, folder, recipe=recipe, seed=parts.seed)
    personas: dict[str, str] = {}
    model = RewardModel(base, folder, recipe=recipe, personas=personas, seed=parts.seed)
    return WithPersonas(model, _synthesize_me(name, parts), personas)


def _gpo(name: str, parts: _Parts) -> "FrozenMethod":
    from pgenrm.methods.gpo import gpo

    return gpo(parts.embedder, variant=_variant(name), seed=parts.seed)


def _vpl(name: str, parts: _Parts) -> "FrozenMethod":
    from pgenrm.methods.vpl import vpl

    return vpl(parts.embedder, variant=_variant(name), seed=parts.seed)


def _pal(name: str, parts: _Parts) -> "FrozenMethod":
    from pgenrm.methods.pal import pal

    form: Literal["a", "b"] = "b" if name == "pal-b" else "a"
    return pal(parts.embedder, form, variant=_variant(name), seed=parts.seed)


def _lore(name: str, parts: _Parts) -> "FrozenMethod":
    from pgenrm.methods.lore import lore

    return lore(parts.embedder, variant=_variant(name), seed=parts.seed)


def _variant(name: str) -> str:
    return "published" if name.endswith("-published") else "corrected"


def _frozen(make: Callable[[str, _Parts], "FrozenMethod"]) -> _Maker:
    def make_kept(name: str, parts: _Parts) -> Method:
        method = make(name, parts)
        method.kept_in = parts.options.models / f"{name}.seed{parts.seed}.pt"
        return method

    return _Maker(make_kept, needs_training=True, is_frozen=True)


MAKERS: Final[dict[str, _Maker]] = {
    **dict.fromkeys(ROWS, _Maker(_judge, needs_engine=True)),
    "synthesize-me": _Maker(_synthesize_me, needs_engine=True),
    "reward-model": _Maker(_reward_model, needs_training=True, needs_reward_base=True),
    "reward-model-personas": _Maker(
        _reward_model, needs_engine=True, needs_training=True, needs_reward_base=True
    ),
    **dict.fromkeys(("gpo", "gpo-published"), _frozen(_gpo)),
    **dict.fromkeys(("vpl", "vpl-published"), _frozen(_vpl)),
    **dict.fromkeys(("pal-a", "pal-b", "pal-a-published"), _frozen(_pal)),
    **dict.fromkeys(("lore", "lore-published"), _frozen(_lore)),
    **{
        name: _Maker(_pgenrm, needs_training=s.n > 0, asks_neighbours=s.n > 0)
        for name, s in VARIANTS.items()
    },
    ATTRIBUTES: _Maker(_attributes),
    **dict.fromkeys(RULES, _Maker(lambda name, parts: Fixed(name, seed=parts.seed))),
    "bayes-observer": _Maker(
        lambda _, parts: BayesObserver(
            parts.world, n_history=parts.n_history(None), seed=parts.seed
        ),
        needs_truth=True,
    ),
    "oracle": _Maker(lambda _, parts: Oracle(parts.world), needs_truth=True),
}
"""By name of the method."""


def make_method(options: MethodOptions, task: Task, dataset: Dataset) -> Method:
    """Make the method of a task, not fitted yet.

    Raises:
        InputError: there is no such method, or it cannot be made for these data.
        MissingExtraError: what it needs is not installed.
        EngineError: its model cannot be loaded.
    """
    name, *alterations = task.method.split("+")
    check_names([task.method])
    if why := _why_not(name, options, dataset):
        raise InputError(f"{task.method} {why}")
    method = MAKERS[name].make(name, _Parts(options, task.seed, dataset))
    for alteration in alterations:
        method = (
            FlippedHistory(method)
            if alteration == "flipped"
            else ShuffledUsers(method, seed=task.seed)
        )
    return method


def check_names(names: Iterable[str]) -> None:
    """Refuse names of methods that do not exist.

    Raises:
        InputError: it says which do.
    """
    for name in names:
        known, *alterations = name.split("+")
        if known not in MAKERS or not set(alterations) <= set(ALTERED):
            raise InputError(
                f"there is no method {name!r}; there are {', '.join(MAKERS)}, each also with "
                f"{' or '.join('+' + a for a in ALTERED)}, or all"
            )


def possible(options: MethodOptions, dataset: Dataset) -> tuple[list[str], dict[str, str]]:
    """Return the methods that can be run, in the order of the table, and why not the others."""
    names = sorted(MAKERS, key=place_of)
    why = {name: reason for name in names if (reason := _why_not(name, options, dataset))}
    return [name for name in names if name not in why], why


def _why_not(name: str, options: MethodOptions, dataset: Dataset) -> str:
    maker = MAKERS[name]
    if maker.needs_engine and not options.has_engine:
        return "needs a language model; name one with --model"
    for is_needed, extra, module in (
        (maker.is_frozen or maker.asks_neighbours, "prototypes", "sentence_transformers"),
        (maker.needs_reward_base, "train", "trl"),
    ):
        if is_needed and find_spec(module) is None:
            return f"needs an extra: pip install 'pgenrm[{extra}]'"
    if maker.needs_reward_base and options.reward_base is None:
        return "needs a language model to fine-tune; name one with --reward-base"
    if maker.needs_training and not dataset.splits.get(TRAIN):
        return (
            f"has nothing to learn from in {dataset.name}, which has no train split; name a data "
            "set that has one with --fit-on"
        )
    if maker.needs_truth and dataset.truth is None:
        return f"needs the truth, which is not known of {dataset.name}"
    return ""


def tasks_of(names: Iterable[str], n_seeds: int) -> list[Task]:
    """Return what is to be run: methods that learn from others once per seed, all others once.

    Those that learn come first, since they take longest; those under an altered view of their users
    after the others, so that they find what was learnt.
    """
    learns = {name: MAKERS[name.partition("+")[0]].needs_training for name in names}
    return [
        Task(name, seed)
        for name in sorted(learns, key=lambda name: (not learns[name], "+" in name))
        for seed in range(n_seeds if learns[name] else 1)
    ]
