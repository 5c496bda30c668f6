"""The child process that segments for Slicer's panel, and its control; real processes, a stand-in for the network."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SEBrainSegLib.analysis.comparison import compare
from SEBrainSegLib.choices.job import Job
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Code, Structure, selected, structures
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.inference.result import Segmentation
from SEBrainSegLib.resources import resource
from SEBrainSegLib.subprocesses import background, run_folder, surfaces
from SEBrainSegLib.subprocesses.background import BackgroundSegmentation
from SEBrainSegLib.translation import joined

LIBRARY = Path(background.__file__).resolve().parents[1]

# In the place of inference/run.py: what it does is chosen by the environment.
STAND_IN = """
import os, signal, sys, time
import SimpleITK as sitk
from ..choices.structures import Code, Structure, selected, structures
from ..errors import SEBrainSegError, UnlikelyError
from .result import Excitation, Segmentation

def run(image, job, progress=None, cancelled=None):
    what = os.environ.get("STAND_IN", "")
    print("a library talks on stdout")
    progress(0.25, "Segmenting coronal slices")
    if what == "sleep":
        time.sleep(120)
    if what == "unlikely" and not job.accept_unlikely:
        raise UnlikelyError("The cerebellum lies above the thalamus.")
    if what == "user error":
        raise SEBrainSegError("Only 3 ml of brain were found; choose a T1-weighted scan.")
    if what == "bug":
        raise IndexError("list index\\nout of range")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(7)
    return tuple(one(image, job, each, progress) for each in job.choices)

def one(image, job, chosen, progress):
    told = chosen.architecture, chosen.se, chosen.view, chosen.device, chosen.protocol, f"'{chosen.model}'", "Grüße"
    progress(1.0, " ".join(told))
    if chosen.model:
        spleen = Structure(300, "Rate | spleen — Milz", (1, 2, 255), *3 * [Code("SCT", "78961009", "Spleen")])
        return Segmentation(sitk.Cast(image > 0, sitk.sitkUInt16) * 300, {300: 1.5}, "cpu", (spleen,), chosen)
    sure = sitk.Cast(image, sitk.sitkFloat32) / 200 if job.confidence else None
    if os.environ.get("STAND_IN") == "two structures":
        labels = sitk.Cast(image > 50, sitk.sitkUInt8) * 17
        return Segmentation(labels, {17: 2.25, 53: 0.0}, "cpu", selected("Hippocampus"), chosen, 3.5)
    excitation = Excitation(job.excitation, sitk.Cast(image, sitk.sitkFloat32) / 100, (0.25,), (0.5,))
    return Segmentation(
        sitk.Cast(image > 0, sitk.sitkUInt8) * 17, {17: 2.25, 53: 0.0}, "cpu", structures(), chosen, 3.5,
        {17: 0.75} if sure else {}, sure, excitation if job.excitation else None,
        "It is upside down." if job.accept_unlikely else "", (17,) if job.accept_unlikely else (),
    )
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library with the stand-in, in a folder whose name has spaces and letters beyond ASCII."""
    folder = tmp_path / "Bjørn's módulo folder"
    shutil.copytree(LIBRARY, folder / "SEBrainSegLib", ignore=shutil.ignore_patterns("__pycache__", "training"))
    (folder / "SEBrainSegLib" / "inference" / "run.py").write_text(STAND_IN, encoding="utf-8")
    for name in ("Structures.csv", "Models/checksums.csv"):
        copy = folder / "Resources" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(resource(name), copy)
    monkeypatch.setattr(background, "MODULE_FOLDER", folder)
    return folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder of temporary files of this test's own, its name beyond ASCII."""
    folder = tmp_path / "Temporäre Dateien"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def image():
    return sitk.GaussianSource(sitk.sitkInt16, (6, 5, 4), (2.0,) * 3, (3.0,) * 3, 100.0)


class SubprocessProcess:
    """A process of Python's own; output is handed on byte by byte, so that lines arrive in pieces."""

    def __init__(self, on_output, on_errors, on_end):
        self.on_output, self.on_errors, self.on_end = on_output, on_errors, on_end
        self.ended = threading.Lock()

    def start(self, program, arguments, environment):
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            [program, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
        )

    def kill(self):
        self.child.kill()
        self.wait()

    def wait(self):
        """Read to the end, then tell it."""
        for byte in iter(lambda: self.child.stdout.read(1), b""):
            self.on_output(byte)
        self.on_errors(self.child.stderr.read())
        status = self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            pipe.close()
        self.on_end(None if status < 0 else status)


class Listener:
    """Keeps what a segmentation tells."""

    def __init__(self, factory=SubprocessProcess, python=sys.executable):
        self.told, self.found = [], ()
        self.run = BackgroundSegmentation(factory, python, self.progress, self.finished, self.failed, self.cancelled)

    def progress(self, fraction, message):
        self.told.append((fraction, message))

    def finished(self, found):
        self.found = found
        self.told.append(("finished", found[0].device if isinstance(found, tuple) else ""))

    @property
    def labels(self):
        return self.found[0].labels

    @property
    def structures(self):
        return self.found[0].structures

    def failed(self, sentence, *unlikely):
        self.told.append(("failed", sentence, *unlikely))

    def cancelled(self):
        self.told.append(("cancelled",))

    def outcome(self):
        """The one outcome told, at the end."""
        outcomes = [entry for entry in self.told if entry[0] in ("finished", "failed", "cancelled")]
        assert len(outcomes) == 1 and outcomes[0] == self.told[-1]
        return outcomes[0]


def run_to_end(image, job=None, known=()):
    listener = Listener()
    listener.run.start(image, job or Job(), known)
    listener.run.process.wait()
    return listener


def test_labels_come_back_on_the_same_grid(library, temporary, image):
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
    image.SetOrigin((1.5, -20, 3))
    listener = run_to_end(image, Job((Parameters(se="cSE", device="cuda:1", protocol="manual"),)))
    assert listener.outcome() == ("finished", "cpu")
    assert (0.25, "Segmenting coronal slices") in listener.told
    assert (1.0, "unet cse coronal cuda:1 manual '' Grüße") in listener.told
    assert listener.labels.GetPixelID() == sitk.sitkUInt8
    assert listener.labels.GetDirection() == image.GetDirection()
    assert listener.labels.GetOrigin() == image.GetOrigin()
    assert listener.labels[2, 2, 2] == 17
    assert listener.structures == structures()
    assert not list(temporary.iterdir())
    assert not listener.run.running


def test_all_that_was_asked_for_comes_back_for_every_choice(library, temporary, image):
    choices = (Parameters(se="sse"), Parameters(se="scse", view="all"))
    listener = run_to_end(image, Job(choices, confidence=True, excitation="decoder 4"))
    assert listener.outcome() == ("finished", "cpu")
    assert tuple(found.parameters for found in listener.found) == choices
    for found in listener.found:
        assert found.volumes == {17: 2.25, 53: 0.0} and found.seconds == 3.5 and found.confidences == {17: 0.75}
        assert found.confidence[2, 2, 2] == pytest.approx(image[2, 2, 2] / 200)
        assert found.excitation.block == "decoder 4"
        assert (found.excitation.mean, found.excitation.spread) == ((0.25,), (0.5,))
        assert found.excitation.spatial[2, 2, 2] == pytest.approx(image[2, 2, 2] / 100)
    assert not list(temporary.iterdir())


def test_what_was_not_asked_for_does_not_come(library, temporary, image):
    found = run_to_end(image).found[0]
    assert found.confidence is None and found.confidences == {} and found.excitation is None


def made_before(image, parameters):
    """A segmentation that finds more than the stand-in does: also where there is nothing."""
    labels = sitk.Cast(image > -1, sitk.sitkUInt8) * 17
    return Segmentation(labels, {17: 9.0, 53: 0.0}, "cpu", selected("Hippocampus"), parameters)


def test_what_is_new_and_what_was_made_before_is_compared_in_the_child(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "two structures")
    first, second = Parameters(se="none"), Parameters(se="scse")
    known = made_before(image, second)
    listener = run_to_end(image, Job((first,), compared=(first, second)), known=(known,))
    found = listener.found
    assert [each.parameters for each in found.segmentations] == [first, second] and found.pairs == ((0, 1),)
    here = compare((found.segmentations[0], known))
    assert sitk.GetArrayFromImage(found.disagreement).tolist() == sitk.GetArrayFromImage(here.disagreement).tolist()
    assert 0 < sitk.GetArrayFromImage(found.disagreement).sum() < image.GetNumberOfPixels()
    np.testing.assert_array_equal(found.dice, here.dice)
    np.testing.assert_array_equal(found.volumes, here.volumes)
    assert found.consensus().volumes == here.consensus().volumes
    assert (1.0, "Comparing the segmentations") in listener.told and not list(temporary.iterdir())
    fractions = [each[0] for each in listener.told if isinstance(each[0], float)]
    assert fractions == sorted(fractions)


def test_what_was_all_made_before_is_compared_without_a_network(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "bug")
    choices = Parameters(se="none"), Parameters(se="scse")
    known = tuple(made_before(image, each) for each in choices)
    found = run_to_end(image, Job((), compared=choices), known=known).found
    assert [each.parameters for each in found.segmentations] == list(choices)
    assert not sitk.GetArrayFromImage(found.disagreement).any() and found.dice[0, 0] == 1


def test_what_cannot_be_compared_is_said(library, temporary, image):
    choices = Parameters(se="none"), Parameters(se="scse")
    known = made_before(image, choices[0]), made_before(image[1:, :, :], choices[1])
    kind, sentence = run_to_end(image, Job((), compared=choices), known=known).outcome()
    assert kind == "failed" and "not of one volume" in sentence


def test_surfaces_come_from_a_child_process(library, temporary, image):
    pytest.importorskip("vtkmodules")
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 17
    labelmap = surfaces.Labelmap(labels, np.diag((1.0, 1, 1, 1)), (("a", "Structure A", 17), ("b", "Structure B", 53)))
    listener = Listener()
    listener.run.start_surfaces([labelmap], surfaces.Settings())
    listener.run.process.wait()
    assert not listener.run.running and not list(temporary.iterdir())
    assert listener.found["b"] is None and (0.5, "Making surfaces: Structure B") in listener.told
    points = listener.found["a"].points
    assert np.abs(points.min(axis=0) - 2).max() < 1 and np.abs(points.max(axis=0) - 5).max() < 1
    # Its normals look outwards.
    assert ((points - 3.5) * listener.found["a"].normals).sum(axis=1).min() > 0


def test_a_python_without_vtk_is_said(library, temporary):
    (library / "vtkmodules.py").write_text("raise ModuleNotFoundError('No module named vtkmodules', name='vtkmodules')")
    labelmap = surfaces.Labelmap(np.ones((2, 2, 2), np.uint8), np.eye(4), (("a", "A", 1),))
    listener = Listener()
    listener.run.start_surfaces([labelmap], surfaces.Settings())
    listener.run.process.wait()
    assert listener.told[-1][0] == "failed" and "vtkmodules" in listener.told[-1][1]


@pytest.mark.parametrize("name", ["abdomen-ct", '--Bjørn\'s "CT" 100 %'])
def test_a_user_trained_model_tells_what_its_labels_mean(library, temporary, image, monkeypatch, tmp_path, name):
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path))
    (tmp_path / f"{name}.pt").touch()
    listener = run_to_end(image, Job((Parameters(model=name),)))
    assert listener.outcome() == ("finished", "cpu")
    assert (1.0, f"unet scse coronal auto freesurfer '{name}' Grüße") in listener.told
    assert listener.labels[2, 2, 2] == 300
    spleen = Structure(300, "Rate | spleen \u2014 Milz", (1, 2, 255), *3 * [Code("SCT", "78961009", "Spleen")])
    assert listener.structures == (spleen,)
    assert listener.structures[0].terminology == spleen.terminology


def test_a_model_that_is_not_there_starts_nothing(library, temporary, image, monkeypatch, tmp_path):
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path))
    listener = Listener()
    with pytest.raises(SEBrainSegError, match="no trained model 'abdomen-ct'"):
        listener.run.start(image, Job((Parameters(model="abdomen-ct"),)))
    assert not listener.run.running and not list(temporary.iterdir())


def test_a_user_error_is_one_sentence(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "user error")
    listener = run_to_end(image)
    assert listener.outcome() == ("failed", "Only 3 ml of brain were found; choose a T1-weighted scan.")
    assert b"Traceback" not in listener.run.errors
    assert not list(temporary.iterdir())


def test_an_unlikely_result_is_refused_and_comes_if_it_is_accepted(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "unlikely")
    assert run_to_end(image).outcome() == ("failed", "The cerebellum lies above the thalamus.", True)
    listener = run_to_end(image, Job(accept_unlikely=True))
    assert listener.outcome() == ("finished", "cpu")
    assert listener.found[0].implausibility == "It is upside down." and listener.found[0].cut_off == (17,)


def test_a_bug_is_one_sentence_and_a_traceback_in_the_log(library, temporary, image, monkeypatch, caplog):
    monkeypatch.setenv("STAND_IN", "bug")
    outcome = run_to_end(image).outcome()
    assert outcome == ("failed", "The segmentation failed unexpectedly (IndexError: list index out of range).")
    assert "Traceback" in caplog.text and "stdout" in caplog.text


def test_missing_pytorch_is_said(library, temporary, image):
    (library / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    shutil.copy(LIBRARY / "inference" / "run.py", library / "SEBrainSegLib" / "inference" / "run.py")
    kind, sentence = run_to_end(image).outcome()
    assert kind == "failed" and sentence.startswith("PyTorch is not installed;")


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_killed_child_is_one_sentence(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "killed")
    kind, sentence = run_to_end(image).outcome()
    assert kind == "failed" and "memory" in sentence
    assert not list(temporary.iterdir())


def test_a_child_that_leaves_without_a_word(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "exit")
    kind, sentence = run_to_end(image).outcome()
    assert kind == "failed" and "exit status 7" in sentence


@pytest.mark.parametrize("status, hinted", [(1, True), (137, True), (7, False)])
def test_memory_is_mentioned_where_a_launcher_hides_the_kill(silent, status, hinted):
    silent.run.process.on_output(b'{"progress": 0.1, "message": "Loading PyTorch"}\n')
    silent.run.process.on_end(status)
    kind, sentence = silent.outcome()
    assert kind == "failed" and f"exit status {status}" in sentence and ("memory" in sentence) == hinted


def test_cancel_ends_the_child_and_removes_its_files(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "sleep")
    listener = Listener()
    listener.run.start(image, Job())
    child = listener.run.process.child
    assert list(temporary.iterdir())
    listener.run.cancel()
    assert child.returncode not in (None, 0)  # killed, not waited for
    assert listener.outcome() == ("cancelled",)
    assert not list(temporary.iterdir())
    assert not listener.run.running
    listener.run.cancel()
    assert listener.outcome() == ("cancelled",)


def test_a_second_run_after_a_cancelled_one(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "sleep")
    listener = Listener()
    listener.run.start(image, Job())
    with pytest.raises(SEBrainSegError, match="running already"):
        listener.run.start(image, Job())
    listener.run.cancel()
    listener.told.clear()
    monkeypatch.setenv("STAND_IN", "")
    listener.run.start(image, Job())
    listener.run.process.wait()
    assert listener.outcome() == ("finished", "cpu")


def test_the_child_ends_when_its_parent_is_gone(library, temporary, image, monkeypatch):
    monkeypatch.setenv("STAND_IN", "sleep")
    listener = Listener()
    listener.run.start(image, Job())
    child = listener.run.process.child
    child.stdin.close()
    assert child.wait(timeout=600) != 0
    child.stdin = open(os.devnull)
    listener.run.process.wait()
    assert not list(temporary.iterdir())


def test_invalid_parameters_start_nothing(library, temporary, image):
    listener = Listener()
    with pytest.raises(SEBrainSegError, match="choose none, cse, sse or scse"):
        listener.run.start(image, Job((Parameters(se="xse"),)))
    assert not listener.run.running and not list(temporary.iterdir())


def test_the_child_answers_in_lines_of_json(library, image, tmp_path):
    sitk.WriteImage(image, str(tmp_path / "volume.nrrd"))
    (tmp_path / "job.json").write_text(Job((Parameters(se="xse"),)).to_json())
    reading, writing = os.pipe()  # its stdin stays open
    result = subprocess.run(
        [sys.executable, "-m", "SEBrainSegLib.subprocesses.worker", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(library)},
        stdin=reading,
        capture_output=True,
    )
    os.close(reading)
    os.close(writing)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1 and result.stderr == b""
    assert [list(answer) for answer in answers] == [["error"]]
    assert str(joined(answers[0]["error"])).endswith("choose none, cse, sse or scse.")


class Silent:
    """A process that does nothing by itself."""

    def __init__(self, on_output, on_errors, on_end):
        self.on_output, self.on_errors, self.on_end = on_output, on_errors, on_end

    def start(self, program, arguments, environment):
        self.folder = Path(arguments[2])

    def answer(self, image, **fields):
        """The last line of a child that found labels, without its end."""
        sitk.WriteImage(image, str(self.folder / "0-labels.nrrd"))
        row = {"images": ["labels"], "device": "mps", "seconds": 1, "parameters": {}, "structures": []}
        said = {"implausibility": "", "cut_off": []}
        self.on_output(
            json.dumps({"segmentations": [{**row, "volumes": [], "confidences": [], **said, **fields}]}).encode()
        )

    def kill(self):
        self.on_output(b'{"progress": 0.9, "message": "late"}\n{"error": "late"}\n')
        self.on_end(None)


@pytest.fixture
def silent(temporary, image):
    listener = Listener(Silent, "python")
    listener.run.start(image, Job())
    return listener


def test_lines_split_anywhere_are_joined(silent):
    tell = silent.run.process.on_output
    whole = b'{"progress": 0.5, "message": "a"}\n\n[1]\nno json\n{"progress": 0.75, "message": "b"}\n'
    for at in range(0, len(whole), 7):
        tell(whole[at : at + 7])
    assert silent.told == [(0.5, "a"), (0.75, "b")]


def test_a_last_line_without_its_end_counts(silent, image):
    silent.run.process.answer(image)
    silent.run.process.on_end(0)
    assert silent.outcome() == ("finished", "mps")


def test_success_without_labels_is_a_failure(silent):
    silent.run.process.on_output(b'{"segmentations": [{"images": ["labels"]}]}\n')
    silent.run.process.on_end(0)
    assert silent.outcome()[0] == "failed"


def test_an_answer_that_lacks_something_is_a_failure(silent, image, temporary):
    silent.run.process.answer(image, parameters={"se": "cse", "no such choice": 1})
    silent.run.process.on_end(0)
    assert silent.outcome()[0] == "failed"
    assert not list(temporary.iterdir())


def test_nothing_is_told_after_cancel_but_that(silent):
    silent.run.cancel()
    assert silent.told == [("cancelled",)]


def test_files_are_removed_even_if_the_listener_fails(silent, temporary, image):
    def finished(segmentations):
        raise ZeroDivisionError

    silent.run.finished = finished
    silent.run.process.answer(image)
    with pytest.raises(ZeroDivisionError):
        silent.run.process.on_end(0)
    assert not list(temporary.iterdir()) and not silent.run.running


# QProcess, as far as PySide's is Slicer's ---------------------------------------------------------------------------


@pytest.fixture
def qt_process(monkeypatch):
    """The class for Slicer's ``QProcess``, on PySide's."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    core = pytest.importorskip("PySide6.QtCore", exc_type=ImportError)
    # Widgets, as other tests need them and there is one application in a process.
    widgets = pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    application = core.QCoreApplication.instance() or widgets.QApplication([])
    monkeypatch.setitem(sys.modules, "qt", core)
    sys.modules.pop("SEBrainSegLib.subprocesses.qtprocess", None)
    from SEBrainSegLib.subprocesses.qtprocess import QtProcess

    yield QtProcess, application
    sys.modules.pop("SEBrainSegLib.subprocesses.qtprocess", None)


def until(application, condition):
    """Let Qt's events happen until a condition holds."""
    end = time.time() + 600
    while not condition():
        assert time.time() < end, "waited in vain"
        application.processEvents()
        time.sleep(0.01)


def test_qprocess_finishes(library, temporary, image, qt_process):
    listener = Listener(qt_process[0])
    listener.run.start(image, Job())
    until(qt_process[1], lambda: not listener.run.running)
    assert listener.outcome() == ("finished", "cpu")
    assert (1.0, "unet scse coronal auto freesurfer '' Grüße") in listener.told
    assert not list(temporary.iterdir())


def test_qprocess_is_cancelled_at_once(library, temporary, image, qt_process, monkeypatch):
    monkeypatch.setenv("STAND_IN", "sleep")
    listener = Listener(qt_process[0])
    listener.run.start(image, Job())
    until(qt_process[1], lambda: (0.25, "Segmenting coronal slices") in listener.told)
    listener.run.cancel()
    assert listener.outcome() == ("cancelled",)
    assert not list(temporary.iterdir())


def test_qprocess_outlives_its_last_signal(qt_process):
    factory, application = qt_process
    gone, seen = [], []

    def on_end(status):
        # As the panel has while it adds what was found to the scene.
        application.processEvents()
        seen.append((status, list(gone)))

    process = factory(lambda content: None, lambda content: None, on_end)
    process.process.destroyed.connect(lambda *_: gone.append("destroyed"))
    process.start(sys.executable, ["-c", ""], {})
    until(application, lambda: seen)
    assert seen == [(0, [])]
    application.sendPostedEvents(None, sys.modules["qt"].QEvent.DeferredDelete)
    assert gone == ["destroyed"]


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_python_ends_with_its_launcher(library, temporary, image, qt_process, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN", "sleep")
    launcher, gone = tmp_path / "PythonSlicer", tmp_path / "gone"
    launcher.write_text(f"""#!/bin/sh
exec 3<&0
( "{sys.executable}" "$@" <&3; : > "{gone}" ) &
wait
""")
    launcher.chmod(0o755)
    listener = Listener(qt_process[0], launcher)
    listener.run.start(image, Job())
    until(qt_process[1], lambda: (0.25, "Segmenting coronal slices") in listener.told)
    listener.run.cancel()
    assert listener.outcome() == ("cancelled",)
    until(qt_process[1], gone.exists)


def test_qprocess_that_cannot_start(library, temporary, image, qt_process, tmp_path):
    listener = Listener(qt_process[0], tmp_path / "no such python")
    listener.run.start(image, Job())
    until(qt_process[1], lambda: not listener.run.running)
    assert listener.outcome()[0] == "failed"
    assert not list(temporary.iterdir())


@pytest.fixture
def held(monkeypatch):
    """Files that cannot be removed as Windows' that another process has open; a number of refusals for each name."""
    refusals, original = {}, os.unlink

    def unlink(path, *arguments, **options):
        name = os.path.basename(os.fspath(path))
        if refusals.get(name, 0) > 0:
            refusals[name] -= 1
            raise PermissionError(13, "The process cannot access the file because another process is using it", path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    return refusals


def test_a_scan_that_the_child_still_holds_is_removed_a_moment_later(library, temporary, image, held):
    held["volume.nrrd"] = 2
    assert run_to_end(image).outcome() == ("finished", "cpu")
    assert held["volume.nrrd"] == 0 and not list(temporary.iterdir())


@pytest.mark.parametrize("by", ["the next run", "the next Slicer"])
def test_a_scan_that_stayed_behind_is_removed_at_the_next_start(library, temporary, image, held, by):
    held["volume.nrrd"] = 1000
    assert run_to_end(image).outcome() == ("finished", "cpu")
    (left,) = temporary.iterdir()
    assert (left / "volume.nrrd").exists()
    held.clear()
    if by == "the next run":
        run_to_end(image)
    else:
        Listener()
    assert not list(temporary.iterdir())


def test_only_folders_of_runs_that_are_over_are_removed_at_a_start(temporary):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"{run_folder._PREFIX}{ended.pid}-abc", f"{run_folder._PREFIX}{os.getppid()}-abc", "SEBrainSeg-links"]
    names += [f"SEBrainSeg-run-another0computer-{ended.pid}-abc", f"{run_folder._PREFIX}mine", "holiday"]
    for name in names:
        (temporary / name).mkdir()
    running = run_folder.create()
    run_folder.remove_abandoned()
    assert {path.name for path in temporary.iterdir()} == {*names[1:], running.name}
