"""The choices that the module, the command line and scripts share."""

import pytest

from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.parameters import Device, Parameters, Variant
from SEBrainSegLib.recalibration import VARIANTS


def test_variants_are_those_of_the_networks():
    assert tuple(variant.value for variant in Variant) == VARIANTS


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
        ({"architecture": "vnet"}, "choose unet."),
        ({"view": "oblique"}, "choose coronal."),
    ],
)
def test_a_wrong_choice_is_answered_with_the_right_ones(wrong, choices):
    with pytest.raises(SEBrainSegError, match="'" + next(iter(wrong.values())) + "'") as raised:
        Parameters(**wrong).checked()
    assert str(raised.value).endswith(choices)


def test_the_model_file_is_named_after_the_choices():
    assert Parameters("UNet", "cSE", "Coronal").model == "unet-cse-coronal"
