"""Texts embedded before methods need them: once for all, by one process, in one fixed order.

The last digits of a vector depend on the texts that are embedded together. Were methods to embed as
they go, at the same time or after a kill, these digits would differ from run to run, and what is
trained on them would too.
"""

from collections.abc import Iterable, Iterator, Sequence

from pgenrm.bench.methods import MAKERS, MethodOptions, embedder_of, make_method
from pgenrm.bench.run import Task
from pgenrm.data.dataset import LEARNT_FROM, Dataset
from pgenrm.types import Comparison, Context


def embedding(names: Iterable[str]) -> list[str]:
    """Return those methods that embed texts of the data, each once and without alterations."""
    plain = dict.fromkeys(name.partition("+")[0] for name in names)
    makers = {name: MAKERS[name] for name in plain}
    return [name for name, maker in makers.items() if maker.is_frozen or maker.asks_neighbours]


def embed_ahead(
    options: MethodOptions,
    names: Iterable[str],
    dataset: Dataset,
    comparisons: Sequence[Comparison],
) -> None:
    """Embed all texts of the data that methods will ask for.

    Args:
        options: as the methods are made with.
        names: of the methods of the bench.
        dataset: that they learn from.
        comparisons: that they judge.
    """
    learnt_from = [c for name in LEARNT_FROM for c in dataset.splits.get(name, ())]
    names = embedding(names)
    frozen = [name for name in names if MAKERS[name].is_frozen]
    texts: set[str] = set()
    if frozen:
        pairs = list(_pairs([*learnt_from, *comparisons]))
        for name in frozen:
            texts.update(_of_frozen(options, name, dataset, pairs))
    if len(frozen) < len(names):  # prototypes are refined on choices to learn from
        for context, response in _pairs(learnt_from):
            texts |= {context[-1].content, response}
    embedder_of(options).embed(sorted(text for text in texts if text.strip()))


def _of_frozen(
    options: MethodOptions, name: str, dataset: Dataset, pairs: Sequence[tuple[Context, str]]
) -> Iterator[str]:
    from pgenrm.methods.embeddings import backwards
    from pgenrm.methods.frozen import FrozenMethod

    method = make_method(options, Task(name, 0), dataset)
    assert isinstance(method, FrozenMethod)
    for context, response in pairs:
        yield method.space.view.text(context, response)
        if method.space.has_prompts:
            yield backwards(context)


def _pairs(comparisons: Iterable[Comparison]) -> Iterator[tuple[Context, str]]:
    """Yield every response with its context, those of past choices too."""
    for comparison in comparisons:
        for response in comparison.responses:
            yield comparison.context, response
        for pair in comparison.user.history:
            yield pair.context, pair.chosen
            yield pair.context, pair.rejected
