"""Texts of the panel can be translated: they are constants that Slicer's translation is asked for."""

import ast
from pathlib import Path

import pytest

from SEBrainSegLib import resources

LIBRARY = Path(resources.__file__).resolve().parent
FILES = (LIBRARY.parent / "SEBrainSeg.py", *sorted(LIBRARY.glob("scene*.py")), LIBRARY / "presenter.py")


def calls(tree, name):
    return [each for each in ast.walk(tree) if isinstance(each, ast.Call) and getattr(each.func, "id", "") == name]


@pytest.mark.parametrize("path", [*FILES, LIBRARY / "background.py"], ids=lambda path: path.name)
def test_texts_go_through_the_translation(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in calls(tree, "_"):
        assert isinstance(call.args[0], ast.Constant), f"{path.name}:{call.lineno}"
    for error in calls(tree, "SEBrainSegError"):
        text = error.args[0]
        texts = calls(text, "_") or isinstance(text, ast.Name)
        assert texts, f"{path.name}:{error.lineno} is not translated"


@pytest.mark.parametrize(
    "path", [LIBRARY / "presenter.py", LIBRARY.parent / "SEBrainSeg.py"], ids=lambda path: path.name
)
def test_what_is_said_is_no_f_string(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for text in ast.walk(tree):
        if isinstance(text, ast.JoinedStr):
            words = "".join(part.value for part in text.values if isinstance(part, ast.Constant))
            assert " " not in words.strip(), f"{path.name}:{text.lineno} is a sentence"
