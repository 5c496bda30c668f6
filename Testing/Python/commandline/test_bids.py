"""BIDS datasets in, BIDS derivatives out."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cohorts import rows, run, scan
from SEBrainSegLib.commandline import main as command_line

pytestmark = pytest.mark.usefixtures("organs")

T1W = "sub-01/ses-a/anat/sub-01_ses-a_acq-fast_run-2_T1w.nii.gz"


@pytest.fixture
def dataset(tmp_path):
    """Two subjects with three scans among much that is none."""
    root = tmp_path / "study of ä"
    for name in (T1W, "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii", "sub-02/anat/sub-02_T1w.nii.gz"):
        scan(root / name)
    others = ("sub-02/anat/sub-02_T2w.nii.gz", "derivatives/fs/sub-02/anat/sub-02_T1w.nii.gz")
    for name in (*others, "sourcedata/sub-02/anat/sub-02_T1w.nii.gz", "sub-03/func/sub-03_task-rest_bold.nii.gz"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not to be read")
    description = {"Name": "A study", "BIDSVersion": "1.8.0", "DatasetDOI": "doi:10.1/2"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def read_tsv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_t1w_becomes_derivatives_of_its_own_entities(dataset, tmp_path):
    assert run(dataset, "out", "participant") == 0
    prefixes = [T1W[: -len("_T1w.nii.gz")], "sub-01/ses-b/anat/sub-01_ses-b", "sub-02/anat/sub-02"]
    endings = ["dseg.nii.gz", "dseg.tsv", "dseg.json", "dseg.seg.nrrd", "dseg.png", "volumes.tsv"]
    made = {f"{prefix}_desc-sebrainseg_{ending}" for prefix in prefixes for ending in endings}
    assert files_of("out") == made | {"dataset_description.json", ".bidsignore", "sebrainseg.csv"}
    with open("out/sebrainseg.csv", newline="", encoding="utf-8") as file:
        assert T1W in [row["input"] for row in csv.DictReader(file)]


def test_labels_have_a_lookup_table_metadata_and_volumes(dataset):
    run(dataset, "out", "participant", "--participant-label", "sub-02", "--confidence")
    prefix = "out/sub-02/anat/sub-02_desc-sebrainseg"
    assert read_tsv(f"{prefix}_dseg.tsv")[1]["name"] == "Spleen"
    assert [row["index"] for row in read_tsv(f"{prefix}_dseg.tsv")] == ["4", "700"]
    assert all(len(row["color"]) == 7 and row["color"][0] == "#" for row in read_tsv(f"{prefix}_dseg.tsv"))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(f"{prefix}_dseg.nii.gz"))
    assert labels.shape == (4, 6, 24) and set(np.unique(labels)) <= {0, 4, 700}
    assert sitk.ReadImage(f"{prefix}_confidence.nii.gz").GetSize() == (24, 6, 4)
    kidney, spleen = read_tsv(f"{prefix}_volumes.tsv")
    assert (kidney["right_ml"], spleen["left_ml"]) == ("n/a", "n/a")
    assert float(spleen["total_ml"]) == pytest.approx((labels == 700).sum() / 1000, abs=0.001)
    sidecar = json.loads(Path(f"{prefix}_dseg.json").read_text(encoding="utf-8"))
    assert sidecar["Sources"] == ["bids:raw:sub-02/anat/sub-02_T1w.nii.gz"] and sidecar["Manual"] is False
    assert sidecar["Network"] == "organs" and sidecar["Device"] == "cpu" and "organs" in sidecar["Description"]


def test_the_derivatives_describe_themselves(dataset, tmp_path):
    inside = dataset / "derivatives" / "sebrainseg"
    for output, link in (("out", dataset.as_uri()), (inside, "../..")):
        assert run(dataset, output, "participant", "--participant_label", "02") == 0
        found = json.loads((Path(output) / "dataset_description.json").read_text(encoding="utf-8"))
        assert found["DatasetType"] == "derivative" and found["GeneratedBy"][0]["Name"] == "sebrainseg"
        assert found["SourceDatasets"] == [{"URL": dataset.as_uri(), "DOI": "doi:10.1/2"}]
        assert found["DatasetLinks"] == {"raw": link} and "A study" in found["Name"]
        assert found["BIDSVersion"].startswith("1.")


def test_a_dataset_goes_on_where_it_stopped_by_subjects_and_networks(dataset, organs, capsys):
    assert run(dataset, "out", "participant", "--participant-label", "01") == 0
    os.unlink("out/sub-01/ses-b/anat/sub-01_ses-b_desc-sebrainseg_dseg.json")
    capsys.readouterr()
    assert run(dataset, "out", "participant") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "skipped" in line] == [line for line in said if T1W in line] and len(said) == 3
    assert len(rows("out/sebrainseg.csv")) == 3
    # Those of another network are neither taken for its own nor replaced.
    organs.rename(organs.with_name("others.pt"))
    arguments = [str(dataset), "out", "participant", "--model", "others", "--device", "cpu"]
    assert command_line.main(arguments) == 1
    assert "are of organs; choose another output folder, or --overwrite" in capsys.readouterr().err
    assert command_line.main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["{study}", "out", "group"], 2, "the analysis level is participant"),
        (["{study}", "out", "participant", "-o", "there"], 2, "leave out -o"),
        (["{study}/sub-02/anat/sub-02_T1w.nii.gz", "--participant-label", "02"], 2, "BIDS_DIR OUTPUT_DIR participant"),
        (["{study}", "out", "participant", "--participant-label", "02", "9"], 1, "no sub-9; there are sub-01, sub-02"),
        (["{study}", "out", "participant", "--participant-label", "03"], 1, "no T1-weighted scan"),
        (["{study}/derivatives", "out", "participant"], 1, "it has no dataset_description.json"),
        (["nowhere", "out", "participant"], 1, "it has no dataset_description.json"),
        (["nowhere", "out", "participant", "--skip-bids-validation"], 1, "it has no dataset_description.json"),
        (["{study}/derivatives/fs", "out", "participant"], 1, "--skip-bids-validation takes it all the same"),
        (["{study}", "out", "participant", "--session-label", "a", "c"], 1, "no ses-c; there are ses-a, ses-b"),
        (["{study}", "out", "participant", "--participant-label", "02", "--session-label", "a"], 1, "there is none"),
        (["{study}/sub-02/anat/sub-02_T1w.nii.gz", "--session-label", "a"], 2, "BIDS_DIR OUTPUT_DIR participant"),
        (["{study}/sub-02/anat/sub-02_T1w.nii.gz", "--skip-bids-validation"], 2, "--skip-bids-validation goes with"),
        (["{study}"], 1, "This is a BIDS dataset; type 'sebrainseg BIDS_DIR OUTPUT_DIR participant'"),
        (["{study}/derivatives/fs"], 1, "This is a BIDS dataset; type 'sebrainseg BIDS_DIR OUTPUT_DIR participant'"),
        (["empty", "out", "participant"], 1, "has no subjects"),
        (["{study}", "{study}", "participant"], 1, "holds another dataset"),
        (["{study}", "fmriprep", "participant"], 1, "holds another dataset"),
    ],
)
def test_what_is_wrong_is_one_sentence(dataset, tmp_path, capsys, arguments, status, words):
    for folder, generators in (("empty", []), ("fmriprep", [{"Name": "fMRIPrep"}])):
        (tmp_path / folder).mkdir()
        text = json.dumps({"Name": folder, "DatasetType": "derivative", "GeneratedBy": generators})
        (tmp_path / folder / "dataset_description.json").write_text(text)
    before = files_of(dataset)
    assert run(*(argument.format(study=dataset) for argument in arguments)) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error, error
    assert not os.path.exists("out") and files_of(dataset) == before


def test_results_of_two_datasets_are_not_mixed(dataset, tmp_path, capsys):
    assert run(dataset, "out", "participant", "--participant-label", "02") == 0
    twin = tmp_path / "twin"
    scan(twin / "sub-02" / "anat" / "sub-02_T1w.nii.gz")
    (twin / "dataset_description.json").write_text('{"Name": "Twin"}')
    capsys.readouterr()
    assert run(twin, "out", "participant") == 1
    assert "results of another dataset" in capsys.readouterr().err


def test_sessions_are_chosen_and_a_missing_description_can_be_passed_over(dataset, capsys):
    assert run(dataset, "out", "participant", "--session-label", "ses-a") == 0
    (dataset / "dataset_description.json").unlink()
    assert run(dataset, "more", "participant", "--session_label", "b", "--skip_bids_validation") == 0
    assert set(rows("out/sebrainseg.csv")) == {os.path.basename(T1W)}
    assert set(rows("more/sebrainseg.csv")) == {"sub-01_ses-b_T1w.nii"}
    assert run(dataset, "out", "participant", "--skip-bids-validation") == 0
    assert len(rows("out/sebrainseg.csv")) == 3


def test_what_is_no_plain_t1w_is_told_apart(dataset, capsys):
    """Phase images, MP2RAGE and what was derived; twins of .nii and .nii.gz are one scan."""
    anat = dataset / "sub-02" / "anat"
    taken = ("sub-02_part-mag_T1w", "sub-02_rec-desc_T1w")
    left = ("part-phase_T1w", "part-real_T1w", "UNIT1", "desc-preproc_T1w", "space-MNI_desc-preproc_T1w", "space-x_T1w")
    for name in (*taken, *(f"sub-02_{each}" for each in left)):
        scan(anat / f"{name}.nii.gz")
    scan(anat / "sub-02_T1w.nii")
    assert run(dataset, "out", "participant", "--participant-label", "02") == 0
    assert set(rows("out/sebrainseg.csv")) == {f"{each}.nii.gz" for each in (*taken, "sub-02_T1w")}
    made = [path.name for path in Path("out").rglob("*_dseg.nii.gz")]
    assert len(made) == 3 and all(name.count("_desc-") == 1 for name in made)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "Left out: " in line]
    assert "UNIT1" in told and "sub-02_part-phase_T1w.nii.gz and 1 more" in told and "preproc" in told
    assert "type 'sebrainseg FILE -o DIR'" in told
    # That is the way to have them all the same.
    assert run(anat / "sub-02_UNIT1.nii.gz", anat / "sub-02_desc-preproc_T1w.nii.gz", "-o", "files") == 0
    # Where there is nothing else, it is the reason.
    for path in anat.glob("*T1w*"):
        path.unlink()
    assert run(dataset, "none", "participant", "--participant-label", "02") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no T1-weighted scan" in error and "sub-02_UNIT1.nii.gz (of MP2RAGE" in error


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("sebrainseg ")
