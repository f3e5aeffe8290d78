"""Prompts: versioned Jinja templates in, chat messages out.

A template defines the blocks `system` (optional) and `user`; its variables are those of
`prompt_variables`, all of them neutralised, so that a template of the user's own is as safe as
ours. A label, a user's id and other users' data are not among them. See docs/prompts.md.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pgenrm.errors import TemplateError
from pgenrm.types import Message, Preference, User
from pgenrm.untrusted import delimiters_in, neutraliser

EMPTY_RESPONSE = "(empty response)"
"""Stands where a response has no text, so that its block is never mistaken for a missing one."""

BUILT_IN = Path(__file__).parent / "templates"

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


class Template:
    """A prompt template.

    Attributes:
        name: the file's name without its suffix.
        version: `name@version`, or `name@sha256:first12` where the file sets no version; written
            into every record.
        neutralise: makes a text harmless in this template, see `pgenrm.untrusted`.
    """

    def __init__(self, name: str, source: str) -> None:
        try:
            tree = _ENVIRONMENT.parse(source)
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"template {name}, line {error.lineno}: {error.message}") from error
        if "user" not in self._template.blocks:
            raise TemplateError(
                f"template {name} has no block 'user'; put what the model reads between "
                "{% block user %} and {% endblock %}"
            )
        self.name = name
        self.version = f"{name}@{_stated_version(tree) or _fingerprint(source)}"
        self.neutralise = neutraliser(
            delimiters_in(literal.data for literal in tree.find_all(nodes.TemplateData))
        )

    @classmethod
    def load(cls, path_or_name: str | Path) -> "Template":
        """Read a built-in template by its name, or any other by its path."""
        path = Path(path_or_name)
        built_in = {file.stem: file for file in sorted(BUILT_IN.glob("*.jinja"))}
        path = built_in.get(str(path_or_name), path)
        try:
            return cls(path.stem, path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(
                f"template {path_or_name} cannot be read ({error}); give the path of a Jinja file "
                f"in UTF-8 or one of {', '.join(built_in)}"
            ) from error

    def render(
        self, user: User, context: Sequence[Message] = (), responses: Sequence[str] = ()
    ) -> tuple[Message, ...]:
        """Render the chat messages, one per non-empty block, system first."""
        variables = prompt_variables(user, context, responses, self.neutralise)
        # Macros and variables at the top of a file exist for its blocks once the file has run; it
        # runs with empty blocks, because each block becomes a message of its own.
        rendering = self._template.new_context(variables)
        blocks = rendering.blocks
        rendering.blocks = {name: [lambda _: iter(())] for name in blocks}
        try:
            list(self._template.root_render_func(rendering))
            rendering.blocks = blocks
            texts = {
                role: "".join(self._template.blocks[role](rendering)).strip()
                for role in ("system", "user")
                if role in self._template.blocks
            }
        except (jinja2.TemplateError, TypeError) as error:
            raise TemplateError(
                f"template {self.name}: {error}; the variables are {', '.join(variables)}"
            ) from error
        return tuple(Message(role=role, content=text) for role, text in texts.items() if text)


def default_template(user: User) -> Template:
    """Return the built-in chain template that shows all that is known about the user."""
    return _built_in("chain_signals" if has_explicit_signals(user) else "chain_history")


def has_explicit_signals(user: User) -> bool:
    """Tell whether anything but bare choices is known: E of the paper's section 3.1."""
    return bool(
        user.criteria
        or (user.self_description or "").strip()
        or user.demographics
        or any(
            pair.chosen_score is not None
            or pair.rejected_score is not None
            or any(value is not None for value in pair.choice_attributes.values())
            for pair in user.history
        )
    )


def prompt_variables(
    user: User,
    context: Sequence[Message],
    responses: Sequence[str],
    neutralise: Callable[[str], str],
) -> dict[str, object]:
    """Return all that a template may show, as plain lists and dicts of neutralised text."""

    def line(text: str) -> str:
        return " ".join(neutralise(text).split())

    def turns(messages: Sequence[Message]) -> list[dict[str, str]]:
        return [{"role": m.role, "content": neutralise(m.content)} for m in messages]

    def response(text: str) -> str:
        return neutralise(text) if text.strip() else EMPTY_RESPONSE

    def past_choice(pair: Preference) -> dict[str, object]:
        return {
            "context": turns(pair.context),
            "query": neutralise(pair.context[-1].content),
            "chosen": response(pair.chosen),
            "rejected": response(pair.rejected),
            "chosen_score": _number(pair.chosen_score),
            "rejected_score": _number(pair.rejected_score),
            "choice_attributes": {
                line(name): _number(value)
                for name, value in pair.choice_attributes.items()
                if value is not None
            },
        }

    return {
        "user": {
            "criteria": [neutralise(text) for text in user.criteria],
            "self_description": neutralise((user.self_description or "").strip()),
            "demographics": {line(name): line(value) for name, value in user.demographics.items()},
        },
        "history": [past_choice(pair) for pair in user.history],
        "context": turns(context),
        "query": neutralise(context[-1].content) if context else "",
        "responses": [response(text) for text in responses],
    }


@cache
def _built_in(name: str) -> Template:
    return Template.load(name)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _stated_version(tree: nodes.Template) -> str | None:
    """Find `{% set version = "..." %}` without running the template."""
    for node in tree.find_all(nodes.Assign):
        is_version = isinstance(node.target, nodes.Name) and node.target.name == "version"
        if is_version and isinstance(node.node, nodes.Const):
            return str(node.node.value)
    return None


def _fingerprint(source: str) -> str:
    return "sha256:" + hashlib.sha256(source.encode()).hexdigest()[:12]
