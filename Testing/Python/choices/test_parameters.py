"""The choices that the module, the command line and scripts share."""

import subprocess
import sys
from pathlib import Path

import pytest

from SEBrainSegLib.choices.job import Job
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.vocabulary import Aggregation, Architecture, Device, Protocol, Variant
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import architectures, bundled, squeeze_excitation


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """What is bundled, and a folder of two user-trained models, in place of this computer's."""
    names = ["unet-scse-coronal", "unet-scse-axial", "unet-scse-sagittal", "unet-none-coronal", "densenet-cse-coronal"]
    monkeypatch.setattr(bundled, "names", lambda: names)
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path))
    for name in ("abdomen-ct", "Knie v1.2"):
        (tmp_path / f"{name}.pt").touch()
    return names


def test_every_choice_can_be_built():
    assert {Variant.NONE, *squeeze_excitation.BLOCKS} == set(Variant)
    assert set(squeeze_excitation.AGGREGATE) == set(Aggregation)
    assert set(architectures.NETWORKS) == set(Architecture)


def test_model_files_list_the_manual_protocol_first():
    assert Protocol.in_rows() == ("manual", "freesurfer")
    assert [Protocol.in_rows().index(each.value) for each in Protocol] == [each.row for each in Protocol]


def test_a_choice_cannot_be_changed_behind_the_back_of_those_who_hold_it():
    with pytest.raises(AttributeError):
        Parameters().se = "none"
    with pytest.raises(AttributeError):
        Job().confidence = True
    assert len({Parameters(se="scSE"), Parameters(se="scse")}) == 1


@pytest.mark.parametrize("written", ["scSE", "scse", "SCSE", " scSE ", Variant.SCSE])
def test_the_spelling_of_a_variant_does_not_matter(written):
    assert Parameters(se=written).checked().se == "scse"


def test_none_is_a_variant_and_not_an_absent_choice():
    assert Parameters(se="None").checked().title == "U-Net"
    assert Parameters(se="scSE").checked().title == "U-Net scSE"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "CUDA:12", "mps", Device.CUDA])
def test_devices(device):
    assert Parameters(device=device).problem() == ""


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ; rm", "", None])
def test_what_is_no_device(device):
    assert "choose auto, cpu, cuda, cuda:N" in Parameters(device=device).problem()


@pytest.mark.parametrize(
    "wrong, choices",
    [
        ({"se": "csse"}, "choose none, cse, sse or scse."),
        ({"architecture": "vnet"}, "choose unet, sdnet or densenet."),
        ({"view": "oblique"}, "choose coronal, axial, sagittal or all."),
        ({"protocol": "mine"}, "choose freesurfer or manual."),
    ],
)
def test_a_wrong_choice_is_answered_with_the_right_ones(wrong, choices):
    with pytest.raises(SEBrainSegError, match="'" + next(iter(wrong.values())) + "'") as raised:
        Parameters(**wrong).checked()
    assert str(raised.value).endswith(choices)


@pytest.mark.parametrize(
    "chosen, words",
    [
        (Parameters("unet", "none", "axial"), ["No U-Net is bundled", "'axial'", "the view coronal", "U-Net scSE for"]),
        (Parameters("unet", "sse", "sagittal"), ["No U-Net sSE is bundled", "'sagittal'", "U-Net scSE for this view"]),
        (Parameters("unet", "none", "all"), ["'all'", "the view coronal", "or U-Net scSE for this view"]),
        (Parameters("sdnet", "sse"), ["No SD-Net sSE is bundled", "choose U-Net, U-Net scSE or DenseNet cSE"]),
        (Parameters("densenet", "cse", "all"), ["No DenseNet cSE", "the view coronal, or U-Net scSE for this view"]),
    ],
)
def test_a_network_that_is_not_bundled_is_answered_with_those_that_are(chosen, words):
    problem = chosen.problem()
    assert all(word in problem for word in words), problem
    assert "\n" not in problem and problem.endswith(".")


def test_all_views_need_the_networks_of_all_three(installed):
    assert Parameters(view="all").problem() == ""
    installed.remove("unet-scse-sagittal")
    assert "choose the view coronal or axial." in Parameters(view="all").problem()


def test_where_nothing_like_it_is_bundled_all_that_is_there_is_named(installed):
    installed[:] = ["unet-scse-coronal", "unet-none-coronal"]
    problem = Parameters("densenet", "scse", "axial").problem()
    assert problem.endswith("choose unet-none-coronal or unet-scse-coronal.")


def test_a_broken_installation_is_a_problem_in_words(installed, monkeypatch):
    installed.clear()
    assert "install SEBrainSeg again" in Parameters().problem()
    monkeypatch.undo()

    def missing(name):
        raise FileNotFoundError(f"Resources/{name} is missing; install it again.")

    monkeypatch.setattr(bundled, "resource", missing)
    assert "checksums.csv is missing" in Parameters().problem()


def test_the_bundled_networks_are_listed_without_torch(monkeypatch):
    monkeypatch.undo()
    assert "unet-scse-coronal" in bundled.names()
    code = "import sys; from SEBrainSegLib.choices.parameters import Parameters; Parameters().checked()"
    code += "; print(*sys.modules)"
    folder = Path(bundled.__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "SEBrainSegLib.networks.bundled" in loaded.split() and "torch" not in loaded.split()


def test_results_are_named_after_the_choices():
    assert Parameters("UNet", "cSE", "Coronal").name == "unet-cse-coronal"
    assert Parameters(view="all").name == "unet-scse-all"
    assert Parameters(protocol="manual").name == "unet-scse-coronal-manual"
    assert len({Parameters(protocol=protocol).name for protocol in Protocol}) == len(Protocol)


def test_titles_say_what_does_not_go_without_saying():
    assert Parameters(view="all").title == "U-Net scSE, all views"
    assert Parameters("sdnet", "none", "axial").title == "SD-Net, axial"
    assert Parameters("densenet", "cse", protocol="Manual").title == "DenseNet cSE, manual protocol"


@pytest.mark.parametrize("model", ["abdomen-ct", "Knie v1.2"])
def test_a_user_trained_model_gives_its_name_and_stands_for_any_network(model, tmp_path):
    for written in (model, str(tmp_path / f"{model}.pt"), tmp_path / f"{model}.pt"):
        chosen = Parameters("densenet", view="sagittal", protocol="manual", model=written)
        assert chosen.problem() == ""
        assert chosen.name == chosen.title == model


def test_an_unknown_model_is_answered_with_those_there_are(tmp_path, monkeypatch):
    problem = Parameters(model="abdomen").problem()
    assert "'abdomen'" in problem and "abdomen-ct" in problem and "Knie v1.2" in problem
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path / "none"))
    assert str(tmp_path / "none") in Parameters(model="abdomen-ct").problem()
