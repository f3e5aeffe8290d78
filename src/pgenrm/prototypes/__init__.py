"""User prototypes: clusters of preference analyses, refined on choices (paper, section 3.3).

The names below are imported when they are first used: most of their modules need the extra
`prototypes`. `pgenrm.prototypes.describe` and `pgenrm.prototypes.page` show what was learnt.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pgenrm.prototypes.analyses import Analysis, analyses_of
    from pgenrm.prototypes.embedder import Embedder, SentenceTransformerEmbedder
    from pgenrm.prototypes.refine import RefinementConfig
    from pgenrm.prototypes.store import Prototypes

__all__ = [
    "Analysis",
    "Embedder",
    "Prototypes",
    "RefinementConfig",
    "SentenceTransformerEmbedder",
    "analyses_of",
]

_MODULES: Final = {
    "Analysis": "analyses",
    "Embedder": "embedder",
    "Prototypes": "store",
    "RefinementConfig": "refine",
    "SentenceTransformerEmbedder": "embedder",
    "analyses_of": "analyses",
}

if not TYPE_CHECKING:  # a type checker would believe in every name

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
