"""The pages for people: their links lead somewhere, and their numbers are the measured ones."""

import re
from pathlib import Path

import pytest

import readme
import SEBrainSegLib

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("Resources", "SEBrainSeg", "Testing")
PAGES = [ROOT / "README.md", *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md")))]


def headings(page):
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in headings(there), target


def test_every_page_is_one_click_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    # The tables that scripts wrote are reached from the pages that speak of them.
    pages = {page.resolve() for page in PAGES if page.parent.name != "results"}
    assert pages - linked == {(ROOT / "README.md").resolve()}


def test_the_readme_has_the_measured_numbers():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_facts(text, readme.read_facts()) == text, "run python Testing/Benchmarks/readme.py"


def test_the_table_of_facts_is_that_of_its_file():
    row = {"parameters": "1234", "dice_freesurfer": "0.5", "dice_manual": "0.6", "seconds": "10"}
    networks = ("unet-scse-coronal", "sdnet-scse-coronal", "densenet-scse-coronal")
    facts = {**dict.fromkeys(networks, row), "unet-scse-all": {**row, "seconds": "31"}}
    lines = readme.table(facts)
    assert "| U-Net scSE (default) | 0.5 | 0.6 | 10 s | 1,234 |" in lines
    assert any("3.1 times" in line for line in lines)


def test_all_that_the_package_offers_is_there():
    text = (ROOT / "Resources/Tutorial/python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bSEBrainSegLib\.(\w+)", text))
    assert {"read", "segment"} <= named
    for name in named | set(SEBrainSegLib.__all__):
        assert callable(getattr(SEBrainSegLib, name)), name


def test_the_package_reads_a_scan():
    scan = SEBrainSegLib.read(ROOT / "Resources/SampleData/colin27_t1.nii.gz")
    assert scan.GetDimension() == 3
