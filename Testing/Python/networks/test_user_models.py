"""Model files of users: where they are, what they carry, and the tables of structures that they are trained with."""

import pytest
import SimpleITK as sitk
import torch

from phantoms import small_model
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.choices.structures import read_structures, structures
from SEBrainSegLib.networks import user_models
from SEBrainSegLib.networks.classes import class_of_label, labels_of_classes, mirrored_classes


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The user's folder, which does not exist yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(folder))
    return folder


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_structures(path)


def test_models_are_found_by_name_and_by_path(models, tmp_path):
    assert user_models.names() == ()
    with pytest.raises(SEBrainSegError, match="There is no trained model 'liver': there is none in"):
        user_models.path_of("liver")
    organs = table(tmp_path, "LabelValue,Name\n4,Liver\n")
    for name in ("liver", "another"):
        small_model(models / f"{name}.pt", organs)
    assert user_models.names() == ("another", "liver")
    assert user_models.path_of("liver") == user_models.path_of(models / "liver.pt") == models / "liver.pt"
    with pytest.raises(SEBrainSegError, match="choose one of another, liver"):
        user_models.path_of("live")


def test_a_model_comes_back_with_all_that_it_knows(models, tmp_path):
    organs = table(tmp_path, "LabelValue,Name,Color_R,Color_G,Color_B\n4,Liver,1,2,3\n700,Left Kidney,,,\n")
    small_model(models / "organs.pt", organs, spacing=(5.0, 0.8, 0.8), window=(-160.0, 240.0))
    model = user_models.load("organs")
    assert model.structures == organs and not model.segments_brains
    assert (model.view, model.spacing, model.window) == ("axial", (5.0, 0.8, 0.8), (-160.0, 240.0))
    small_model(models / "flat.pt", organs, spacing=None)
    model = user_models.load("flat")
    assert (model.spacing, model.window) == (None, None)


def test_damaged_and_foreign_files_are_refused_in_a_sentence(models, tmp_path):
    organs = table(tmp_path, "LabelValue,Name\n4,Liver\n")
    small_model(models / "whole.pt", organs)
    content = (models / "whole.pt").read_bytes()
    (models / "cut.pt").write_bytes(content[: len(content) // 2])
    (models / "text.pt").write_text("no model")
    torch.save({"weights": {}}, models / "foreign.pt")
    stored = torch.load(models / "whole.pt", weights_only=True)
    stored["structures"] *= 2
    torch.save(stored, models / "uneven.pt")
    for name in ("cut", "text", "foreign", "uneven"):
        with pytest.raises(SEBrainSegError, match=f"{name}.pt is no model file of SEBrainSeg, or it is damaged"):
            segment(sitk.Image([32, 32, 32], sitk.sitkInt16), model=name, device="cpu")


def test_other_organs_need_no_brain(models, tmp_path):
    """Neither 100 ml of anything nor one piece of it: a network that finds nothing has an answer, too."""
    organs = table(tmp_path, "LabelValue,Name\n4,Liver\n700,Spleen\n")
    small_model(models / "organs.pt", organs, spacing=(1.0, 1.0, 1.0), window=(0.0, 1.0))
    image = sitk.GaussianSource(sitk.sitkFloat32, [24, 20, 18], sigma=[4.0] * 3, mean=[12.0] * 3)
    found = segment(image, model="organs", device="cpu")
    assert found.structures == organs and set(found.volumes) == {4, 700}
    assert found.labels.GetSize() == image.GetSize() and found.labels.GetPixelID() == sitk.sitkUInt16
    with pytest.raises(SEBrainSegError, match="dimensions"):
        segment(image[:, :, 3], model="organs", device="cpu")


# Tables


def test_a_table_of_labels_and_names_is_enough(tmp_path):
    found = table(tmp_path, "\ufeffLabelValue,Name\n3,Left Kidney\n9,kidney_right\n2,Liver\n40000,Gall bladder\n")
    assert [each.label for each in found] == [3, 9, 2, 40000]
    assert [each.side for each in found] == ["left", "right", "", ""]
    assert [each.unsided_name.lower() for each in found] == ["kidney", "kidney", "liver", "gall bladder"]
    assert len({each.color for each in found}) == 4
    assert {each.type.meaning for each in found} == {"Tissue"} and found[0].modifier.value == "7771000"
    assert class_of_label(found) == {3: 1, 9: 2, 2: 3, 40000: 4}
    labels = labels_of_classes(found)
    assert labels.tolist() == [0, 3, 9, 2, 40000] and labels.dtype == "uint16"
    assert mirrored_classes(found[:1])[:3].tolist() == [0, 1, 2]


def test_what_a_table_says_is_taken(tmp_path):
    header = "LabelValue,Name,Color_R,Color_G,Color_B,Type_CodingScheme,Type_CodeValue,Type_CodeMeaning"
    (found,) = table(tmp_path, f"{header}\n7,Liver,10,20,30,SCT,10200004,Liver\n")
    assert found.color == (10, 20, 30) and tuple(found.type) == ("SCT", "10200004", "Liver")
    assert (
        structures()[0].name == "Left Cerebral White Matter" and structures()[0].unsided_name == "Cerebral White Matter"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("LabelValue,Name\n", "has no rows"),
        ("Label,Name\n1,Liver\n", "no column LabelValue"),
        ("LabelValue\n1\n", "no column Name"),
        ("LabelValue,Name\n0,Background\n", "label 0 is the background"),
        ("LabelValue,Name\n1,Liver\n1.5,Spleen\n", "row 2: '1.5' is no LabelValue"),
        ("LabelValue,Name\n-1,Liver\n", "'-1' is no LabelValue"),
        ("LabelValue,Name\n70000,Liver\n", "'70000' is no LabelValue"),
        ("LabelValue,Name\n1,\n", "label 1 has no name"),
        ("LabelValue,Name\n1\n", "label 1 has no name"),
        ("LabelValue,Name\n1,Liver\n1,Spleen\n", "the label 1 more than once"),
        ("LabelValue,Name\n1,Liver\n2,Liver\n", "the name Liver more than once"),
        ("LabelValue,Name,Color_R,Color_G,Color_B\n1,Liver,300,0,0\n", "'300' is no colour"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(tmp_path, text, words):
    with pytest.raises(SEBrainSegError, match=words) as refused:
        table(tmp_path, text)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_a_table_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(SEBrainSegError, match="cannot be read"):
        read_structures(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SEBrainSegError, match="cannot be read"):
        read_structures(tmp_path / "binary.csv")
