"""Every error that pgenrm raises on purpose, drawn as one tree.

PgenrmError
├── InputError          a file, a row or an option of the user's is wrong (also a ValueError)
│   └── RowError        ... at a known place, e.g. prism.jsonl:412
├── FormatError         a text is not a readable evaluation chain (also a ValueError)
├── TemplateError       a prompt template cannot be read or rendered
├── PromptTooLongError  the parts of a prompt that must stay do not fit the context window
├── EngineError         an engine cannot be used at all (a single failed request is a `Failure`)
├── TrainingError       a training run had to stop: a loss that is no number, a full disk
└── MissingExtraError   an optional dependency is not installed (also an ImportError)

PgenrmWarning           (a UserWarning)
└── DriftWarning        users have moved away from the prototypes they were fitted to

Messages carry the value, the place and the next step.
"""


class PgenrmError(Exception):
    """Base of all errors raised by pgenrm."""


class InputError(PgenrmError, ValueError):
    """Something the user gave is wrong; the message says what to do."""


class RowError(InputError):
    """A row of a file is wrong.

    Attributes:
        place: `file:line`, or `file[i]` for item i of a JSON array.
        reason: what is wrong and what to do.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class FormatError(PgenrmError, ValueError):
    """A text is not a readable evaluation chain.

    Attributes:
        missing: what could not be found, e.g. `("score of response_2",)`.
    """

    def __init__(self, reason: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.missing = missing


class TemplateError(PgenrmError):
    """A prompt template cannot be read or rendered."""


class PromptTooLongError(PgenrmError):
    """Instructions, query and responses alone do not fit the context window."""


class EngineError(PgenrmError):
    """An engine cannot be used at all: wrong address, unknown model, no key."""


class TrainingError(PgenrmError):
    """A training run had to stop; the message names the step and where it can go on from."""


class MissingExtraError(PgenrmError, ImportError):
    """An optional dependency is missing; the message names the install command."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an extra: pip install 'pgenrm[{extra}]'")
        self.extra = extra


class PgenrmWarning(UserWarning):
    """Base of all warnings of pgenrm."""


class DriftWarning(PgenrmWarning):
    """Users have moved away from the prototypes they were fitted to; fit again."""
