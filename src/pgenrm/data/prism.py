"""PersonalRewardBench, PRISM, joined with PRISM's survey and conversations.

From `prism-alignment` come what users state (`system_string`, the sliders of `stated_prefs`), their
self-descriptions and demographics, and after each conversation how much each attribute mattered.
The last is given in hindsight: it is shown with past choices of that conversation and never with a
comparison of it, because history has no pair of the comparison's own conversation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pgenrm.data.dataset import Dataset
from pgenrm.data.hub import HubRow, Repository, RowT, open_repository, read_rows
from pgenrm.data.pairs import NO_TEXT, PairRow, Placed, pairs_dataset, read_pairs
from pgenrm.types import Id, Preference, User

REPO_ID: Final = "MichaelR207/prism_personalized_0125"
SURVEY_REPO_ID: Final = "HannahRoseKirk/prism-alignment"
UNSAID: Final = ("", NO_TEXT, "Prefer not to say")


class SurveyRow(HubRow):
    """The columns that are read of the survey."""

    user_id: Id
    self_description: str | None
    system_string: str | None
    age: str | None
    gender: str | None
    employment_status: str | None
    education: str | None
    marital_status: str | None
    study_locale: str | None
    religion: dict[str, Any] | None
    ethnicity: dict[str, Any] | None
    stated_prefs: dict[str, Any] | None


PLAIN: Final = (
    *("age", "gender", "employment_status", "education", "marital_status", "study_locale"),
)
CATEGORISED: Final = ("religion", "ethnicity")


class ConversationRow(HubRow):
    """The columns that are read of the conversations; their texts come with the pairs."""

    conversation_id: Id
    choice_attributes: dict[str, float | None] | None


def load_prism(folder: Path | None = None, revision: str | None = None) -> Dataset:
    """Load PRISM with everything that is stated in the survey.

    Args:
        folder: holds both repositories.
        revision: `name@commit,name@commit`, or a commit of the pairs alone.

    Raises:
        InputError: one of the two repositories cannot be had, or a row is wrong.
    """
    repository = open_repository(REPO_ID, folder=folder, revision=revision)
    survey = open_survey(folder, revision)
    return prism_dataset(repository, read_pairs(repository), survey)


def open_survey(folder: Path | None, revision: str | None) -> Repository:
    """Get the repository of survey and conversations; a commit of the pairs is none of it."""
    pins = revision if revision and "@" in revision else None
    return open_repository(SURVEY_REPO_ID, folder=folder, revision=pins)


def prism_dataset(repository: Repository, rows: Sequence[Placed], survey: Repository) -> Dataset:
    """Join rows that were read with the survey.

    Raises:
        InputError: a row of survey or conversations is wrong.
    """
    users = {row.user_id: _user(row) for row in _all(survey, SurveyRow, "survey")}
    attributes = {
        row.conversation_id: row.choice_attributes or {}
        for row in _all(survey, ConversationRow, "conversations")
    }

    def past_choice(row: PairRow) -> Preference:
        return Preference(
            context=row.context,
            chosen=row.chosen,
            rejected=row.rejected,
            chosen_score=row.chosen_score,
            rejected_score=row.rejected_score,
            choice_attributes=attributes.get(row.conversation_id, {}),
        )

    user_ids = {item.row.user_id for item in rows}
    conversation_ids = {item.row.conversation_id for item in rows}
    missing = (
        (len(user_ids - users.keys()), len(user_ids), "users", "survey row: nothing stated"),
        (
            len(conversation_ids - attributes.keys()),
            len(conversation_ids),
            "conversations",
            "conversation row: no choice attributes",
        ),
    )
    return pairs_dataset(
        "prism",
        f"{repository.revision},{survey.revision}",
        rows,
        user_of=lambda user_id: users.get(user_id) or User(id=user_id),
        past_choice=past_choice,
        notes=[f"{n} of {total} {who} have no {what}" for n, total, who, what in missing if n],
    )


def _all(repository: Repository, kind: type[RowT], config: str) -> list[RowT]:
    return [row for rows in read_rows(repository, kind, config).values() for row in rows]


def _user(row: SurveyRow) -> User:
    demographics = {name: getattr(row, name) for name in PLAIN}
    demographics |= {name: _category(getattr(row, name)) for name in CATEGORISED}
    return User(
        id=row.user_id,
        criteria=tuple(filter(None, (_said(row.system_string), _sliders(row.stated_prefs)))),
        self_description=_said(row.self_description),
        demographics={name.replace("_", " "): _said(v) for name, v in demographics.items()},
    )


def _said(text: str | None) -> str | None:
    return None if text is None or text.strip() in UNSAID else text.strip()


def _category(answer: Mapping[str, Any] | None) -> str | None:
    """Return the category of a free answer; releases name the field differently."""
    found = [value for name, value in (answer or {}).items() if "categorised" in name]
    return next((value for value in found if isinstance(value, str)), None)


def _sliders(ratings: Mapping[str, Any] | None) -> str | None:
    """Put the sliders into one statement; `other` is named as the user names it."""
    ratings = ratings or {}
    names = {"other": _said(ratings.get("other_text")) or "other"}
    said = [
        f"{names.get(name, name)} {value:g}"
        for name, value in ratings.items()
        if isinstance(value, int | float)
    ]
    return (
        f"How much each of these matters to me, from 0 to 100: {', '.join(said)}" if said else None
    )
