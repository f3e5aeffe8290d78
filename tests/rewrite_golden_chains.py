"""Rewrite the expected results of the golden chains: python -m tests.rewrite_golden_chains.

Each `golden/chains/NAME.txt` is what a model might write. `NAME.json` beside it says what it shows
(`about`), for how many responses it is read, and the result: a chain, or what is missing. To add a
chain, write the text and a JSON file with `about` and `n_responses`, run this, and read the diff:
the results are the specification of the parser.
"""

import json
from pathlib import Path
from typing import Any

from pgenrm.chain import parse
from pgenrm.errors import FormatError

CHAINS = Path(__file__).parent / "golden" / "chains"


def result(text: str, n_responses: int) -> dict[str, Any]:
    """Return the chain, or what is missing, as JSON."""
    try:
        return {"chain": parse(text, n_responses).model_dump(mode="json")}
    except FormatError as error:
        return {"missing": list(error.missing)}


def main() -> None:
    """Read every text again and write its result."""
    for path in sorted(CHAINS.glob("*.txt")):
        expected = path.with_suffix(".json")
        case = json.loads(expected.read_text("utf-8"))
        case = {key: case[key] for key in ("about", "n_responses")}
        case |= result(path.read_bytes().decode("utf-8"), case["n_responses"])
        expected.write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
