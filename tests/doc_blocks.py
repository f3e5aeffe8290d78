"""The code blocks of README and docs: what they claim to print, and what they print.

A `console` block is a command after `$ ` and its standard output; a `python` block is run, and a
`text` block right after it is what it prints. Blocks in `sh` need what a test machine lacks (a
server, weights) and are not run. `python -m tests.doc_blocks [PAGE...]` rewrites the
outputs of all pages or of those given.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"```console\n\$ (?P<command>.*?(?<!\\))\n(?P<printed>.*?)```"
    r"|```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One runnable block: what to run and what the page says it prints."""

    page: Path
    run: tuple[str, ...]
    printed: str
    span: tuple[int, int]


def blocks(page: Path) -> Iterator[Block]:
    for found in BLOCK.finditer(page.read_text("utf-8")):
        if found["command"] is not None:
            command = found["command"].replace("\\\n", " ")
            yield Block(page, ("bash", "-c", command), found["printed"], found.span("printed"))
        else:
            span = found.span("output") if found["output"] is not None else (-1, -1)
            run = (sys.executable, "-c", found["code"])
            yield Block(page, run, found["output"] or "", span)


def run(block: Block) -> str:
    """Run a block in the project's root with a fixed width and without colours.

    Raises:
        AssertionError: it failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(block.run, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.run} failed:\n{done.stderr}"
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def rewrite(page: Path) -> None:
    text = page.read_text("utf-8")
    for block in reversed(list(blocks(page))):
        printed = run(block)
        start, end = block.span
        if start >= 0:
            text = text[:start] + printed + text[end:]
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]) if sys.argv[1:] else PAGES:
        rewrite(page)
