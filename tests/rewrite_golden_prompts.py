"""Rewrite the golden files of the prompts: python -m tests.rewrite_golden_prompts.

A template whose text changed must carry a new version first: the fingerprint of a version that is
on record is never rewritten, since results name the version.
"""

import hashlib
import json
import sys

from pgenrm.prompts import BUILT_IN, Template
from tests.prompt_cases import TEMPLATES, VERSIONS, golden_prompts


def fingerprints() -> dict[str, str]:
    """Return the hash of each built-in template's file by its version."""
    return {
        Template.load(name).version: hashlib.sha256(
            (BUILT_IN / f"{name}.jinja").read_bytes()
        ).hexdigest()
        for name in TEMPLATES
    }


def changed_without_new_version(recorded: dict[str, str]) -> list[str]:
    """Return the versions whose text is not the recorded one."""
    return [v for v, found in fingerprints().items() if recorded.get(v, found) != found]


def main() -> None:
    recorded = json.loads(VERSIONS.read_text()) if VERSIONS.exists() else {}
    changed = changed_without_new_version(recorded)
    if changed:
        sys.exit(f"the text of {', '.join(changed)} changed; set a new version in the template")
    VERSIONS.parent.mkdir(parents=True, exist_ok=True)
    VERSIONS.write_text(json.dumps(recorded | fingerprints(), indent=2, sort_keys=True) + "\n")
    for path, text in golden_prompts():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
