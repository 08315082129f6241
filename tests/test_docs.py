"""The pages of docs/ speak of what is there."""

import re
from pathlib import Path

import pytest
from load_script import script

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert links and [link for link in links if not (page.parent / link).exists()] == []


def test_the_architecture_can_be_drawn(tmp_path):
    script("dev/draw_architecture").draw(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 50_000
