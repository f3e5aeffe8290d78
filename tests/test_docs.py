"""Pages cannot rot: every command and example on them runs and prints what they say."""

import re
from pathlib import Path

import pytest

from tests.doc_blocks import PAGES, ROOT, Block, blocks, run

BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page.stem}:{b.run[-1][:50]}")
def test_a_block_prints_what_the_page_says(block: Block) -> None:
    assert run(block) == block.printed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_real_output() -> None:
    assert sum(block.page == ROOT / "README.md" for block in BLOCKS) >= 3
