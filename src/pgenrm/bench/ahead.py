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


def are_frozen(names: Iterable[str]) -> list[str]:
    """Return those methods that learn on frozen embeddings, each once and without alterations."""
    plain = dict.fromkeys(name.partition("+")[0] for name in names)
    return [name for name in plain if MAKERS[name].is_frozen]


def embed_ahead(
    options: MethodOptions,
    names: Iterable[str],
    dataset: Dataset,
    comparisons: Sequence[Comparison],
) -> None:
    """Embed all texts that methods on frozen embeddings will ask for.

    Args:
        options: as the methods are made with.
        names: of the methods of the bench.
        dataset: that they learn from.
        comparisons: that they judge.
    """
    from pgenrm.methods.embeddings import backwards
    from pgenrm.methods.frozen import FrozenMethod

    learnt_from = [c for name in LEARNT_FROM for c in dataset.splits.get(name, ())]
    pairs = list(_pairs([*learnt_from, *comparisons]))
    texts: dict[str, None] = {}
    for name in are_frozen(names):
        method = make_method(options, Task(name, 0), dataset)
        assert isinstance(method, FrozenMethod)
        space = method.space
        texts |= dict.fromkeys(space.view.text(context, response) for context, response in pairs)
        if space.has_prompts:
            texts |= dict.fromkeys(backwards(context) for context, _ in pairs)
    embedder_of(options).embed(sorted(texts))


def _pairs(comparisons: Iterable[Comparison]) -> Iterator[tuple[Context, str]]:
    """Yield every response with its context, those of past choices too."""
    for comparison in comparisons:
        for response in comparison.responses:
            yield comparison.context, response
        for pair in comparison.user.history:
            yield pair.context, pair.chosen
            yield pair.context, pair.rejected
