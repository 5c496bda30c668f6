"""Lets the tests run from a checkout, installed or not."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SEBrainSeg"))

from SEBrainSegLib.inference.threads import wait_passively  # noqa: E402

# Before a test imports torch: with two cores and other work beside it, spinning threads take many times longer.
wait_passively()


@pytest.fixture
def any_result(monkeypatch):
    """Nothing is refused as unlike a brain: what stand-ins for networks find in made-up images is."""
    from SEBrainSegLib.inference import plausibility

    monkeypatch.setattr(plausibility, "why_no_scan", lambda *_: "")
    monkeypatch.setattr(plausibility, "why_unlikely", lambda *_: "")


@pytest.fixture
def organs(tmp_path, monkeypatch):
    """A small user-trained model of the name "organs", of two structures, and an empty working directory."""
    from SEBrainSegLib.choices.structures import read_structures
    from test_user_models import small_model

    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path / "models"))
    table = tmp_path / "table.csv"
    table.write_text("LabelValue,Name\n4,Left Kidney\n700,Spleen\n", encoding="utf-8")
    path = tmp_path / "models" / "organs.pt"
    small_model(path, read_structures(table), spacing=(1.0, 1.0, 1.0), window=(0.0, 1.0))
    monkeypatch.chdir(tmp_path)
    return path
