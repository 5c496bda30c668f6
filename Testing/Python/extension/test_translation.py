"""What the panel shows can be translated, also what the core and the child process say; the core needs no Slicer."""

import ast
import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest

from SEBrainSegLib import resources, translation
from SEBrainSegLib.choices.job import Job
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.subprocesses import worker
from SEBrainSegLib.subprocesses.background import BackgroundSegmentation

LIBRARY = Path(resources.__file__).resolve().parent
MODULE = LIBRARY.parent / "SEBrainSeg.py"
FOLDERS = ("choices", "networks", "panel", "scene", "subprocesses")
FILES = [MODULE, *(path for folder in FOLDERS for path in sorted((LIBRARY / folder).glob("*.py")))]
# What it says is replaced by those that read a file of a name.
FILES = [path for path in FILES if path.name not in ("__init__.py", "model_file.py")]


def calls(tree, name):
    return [each for each in ast.walk(tree) if isinstance(each, ast.Call) and getattr(each.func, "id", "") == name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_texts_go_through_the_translation(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in calls(tree, "_"):
        assert isinstance(call.args[0], ast.Constant), f"{path.name}:{call.lineno}"
    for error in calls(tree, "SEBrainSegError"):
        assert not isinstance(error.args[0], (ast.Constant, ast.JoinedStr)), f"{path.name}:{error.lineno}"


@pytest.mark.parametrize("path", [MODULE, *sorted((LIBRARY / "panel").glob("*.py"))], ids=lambda path: path.name)
def test_what_is_said_is_no_f_string(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for text in ast.walk(tree):
        if isinstance(text, ast.JoinedStr):
            words = "".join(part.value for part in text.values if isinstance(part, ast.Constant))
            assert " " not in words.strip(), f"{path.name}:{text.lineno} is a sentence"


# As Slicer has it after a translation, by file and text.
GERMAN = {
    ("choices.parameters", "Unknown view '{value}': choose {choices}."): "Kein Schnitt '{value}': {choices} wählen.",
    ("choices.vocabulary", "{choices} or {last}"): "{choices} oder {last}",
    ("choices.vocabulary", "All three"): "Alle drei",
    ("choices.vocabulary", "Coronal"): "Koronal",
    ("choices.job", "Nothing is chosen to segment with; choose a network."): "{falsch}",
    ("subprocesses.worker", "Loading PyTorch"): "PyTorch wird geladen",
}


@pytest.fixture
def german(monkeypatch):
    """Slicer's translator, as its application has loaded it."""
    stand_in = types.ModuleType("slicer.i18n")
    stand_in.translate = lambda context, text: GERMAN.get((context, text), text)
    monkeypatch.setitem(sys.modules, "slicer.i18n", stand_in)


def output_of(code):
    """What a process of its own prints that has imported nothing but the code does."""
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True).stdout


def test_sentences_of_the_core_are_in_the_language_of_slicer(german):
    assert Parameters(view="x").problem() == "Kein Schnitt 'x': coronal, axial, sagittal oder all wählen."


def test_a_translation_with_misspelt_fields_is_not_used(german):
    assert Job(()).problem() == "Nothing is chosen to segment with; choose a network."


def test_without_slicer_sentences_are_as_they_are_and_slicer_is_not_loaded():
    printed = output_of(
        "import sys; from SEBrainSegLib.choices.parameters import Parameters\n"
        "print(Parameters(view='x').problem()); print('slicer' in sys.modules)"
    )
    assert printed.splitlines() == ["Unknown view 'x': choose coronal, axial, sagittal or all.", "False"]


def test_lists_of_the_panel_are_in_the_language_of_slicer():
    # Labels are fixed when the library is first imported, which Slicer does after it has loaded its translations.
    printed = output_of(
        "import sys, types; stand_in = types.ModuleType('slicer.i18n'); sys.modules['slicer.i18n'] = stand_in\n"
        f"german = {GERMAN!r}\n"
        "stand_in.translate = lambda context, text: german.get((context, text), text)\n"
        "from SEBrainSegLib.choices.vocabulary import View\n"
        "print([view.label() for view in View])"
    )
    assert printed.strip() == "['Koronal', 'Axial', 'Sagittal', 'Alle drei']"


def test_what_the_child_process_says_is_translated_in_slicer(monkeypatch, request):
    """The child, without Slicer, writes lines; the module, in Slicer, reads them."""
    lines, told = [], []

    def load_run():
        raise SEBrainSegError(Parameters(view="x").problem())

    monkeypatch.delitem(sys.modules, "slicer.i18n", raising=False)
    stream = types.SimpleNamespace(write=lines.append, flush=lambda: None)
    monkeypatch.setattr(worker, "take_stdout", lambda: stream)
    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker, "read", lambda folder: (None, Job()))
    monkeypatch.setattr(worker, "load_run", load_run)
    assert worker.main(["folder"]) == 1
    request.getfixturevalue("german")
    run = BackgroundSegmentation(None, "", lambda fraction, message: told.append(message), *3 * [None])
    run.error, run.unlikely, run.answer, run.was_cancelled, run.unread = "", False, None, False, b""
    run.on_output("".join(lines).encode())
    assert told == ["PyTorch wird geladen"]
    assert run.error == "Kein Schnitt 'x': coronal, axial, sagittal oder all wählen."


@pytest.mark.parametrize("ask", [bundled.checksums, lambda: bundled.corrections_of("unet-scse-coronal.pt", "")])
def test_what_an_incomplete_installation_lacks_can_be_translated(ask, monkeypatch):
    monkeypatch.delitem(sys.modules, "slicer.i18n", raising=False)
    monkeypatch.setattr(bundled, "resource", lambda name: resources.resource(f"Nowhere/{name}"))
    with pytest.raises(SEBrainSegError) as raised:
        ask()
    assert translation.parts(raised.value.sentence)["values"]["name"].startswith("Nowhere/Models/")


def test_a_sentence_survives_the_way_between_processes():
    sentence = Parameters(view="x").problem()
    made = pickle.loads(pickle.dumps(SEBrainSegError(sentence)))
    assert str(made) == sentence and made.sentence.values["value"] == "x"
    assert translation.joined(json.loads(json.dumps(translation.parts(made.sentence)))) == sentence
    assert translation.joined(translation.parts("{no} field")) == "{no} field"
