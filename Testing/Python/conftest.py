"""Fixtures of tests in several folders. Imports stay within them: some tests check what is imported when."""

import pytest

from SEBrainSegLib.inference.threads import wait_passively

# Before a test imports torch: with two cores and other work beside it, spinning threads take many times longer.
wait_passively()


@pytest.fixture
def any_result(monkeypatch):
    """Nothing is refused as unlike a brain: what stand-ins for networks find in made-up images is."""
    from SEBrainSegLib.inference import plausibility

    monkeypatch.setattr(plausibility, "why_no_scan", lambda *_: "")
    monkeypatch.setattr(plausibility, "why_unlikely", lambda *_: "")


@pytest.fixture
def network(monkeypatch, any_result):
    """The network that stands in for bundled ones of every view: it labels by intensity."""
    from phantoms import ByIntensity, model
    from SEBrainSegLib.networks import bundled

    stand_in = ByIntensity()
    names = ["unet-none-coronal", *(f"unet-scse-{view}" for view in ("coronal", "axial", "sagittal"))]
    monkeypatch.setattr(bundled, "load", lambda architecture, se, view, protocol: model(stand_in, view))
    monkeypatch.setattr(bundled, "names", lambda: names)
    return stand_in


@pytest.fixture
def organs(tmp_path, monkeypatch):
    """A small user-trained model of the name "organs", of two structures, and an empty working directory."""
    from phantoms import small_model
    from SEBrainSegLib.choices.structures import read_structures

    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path / "models"))
    table = tmp_path / "table.csv"
    table.write_text("LabelValue,Name\n4,Left Kidney\n700,Spleen\n", encoding="utf-8")
    path = tmp_path / "models" / "organs.pt"
    small_model(path, read_structures(table), spacing=(1.0, 1.0, 1.0), window=(0.0, 1.0))
    monkeypatch.chdir(tmp_path)
    return path
