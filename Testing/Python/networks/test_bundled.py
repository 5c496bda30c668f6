"""Model files: what is written comes back, and what is damaged or foreign is refused before it is used."""

import base64
import csv
import hashlib
import io
import json
import os
import pickle
import zlib

import pytest
import torch

from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.model_file import read_model, write_model
from SEBrainSegLib.resources import resource

# Two protocols of background and 31 structures each.
ARGUMENTS = {"classes": 64, "width": 4, "kernel": 3, "depth": 2, "se": "scse", "aggregation": "addition"}
NAME = "unet-scse-coronal.pt"
SHARED = [2, 41, 4, 43, 7, 46, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53]
SPECIAL = {
    "shared_rows": {"freesurfer": SHARED},
    "logit_shifts": {"freesurfer": {"0": 0.5, "5": -2.0, "44": -2.0}},
    "smoothing": [0.2, 0.6, 0.2],
}


class Touch:
    """What an attacker would pickle: unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network():
    """A network whose batch norms hold statistics that matter."""
    torch.manual_seed(0)
    network = UNet(**ARGUMENTS)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.2, 2.0)
    return network.eval()


@pytest.fixture
def models(tmp_path, monkeypatch, network):
    """The folder of the only bundled network, in place of the real one."""
    folder = tmp_path / "Resources" / "Models"
    folder.mkdir(parents=True)

    def resource(name):
        path = tmp_path / "Resources" / name
        if not path.exists():
            raise FileNotFoundError(name)
        return path

    monkeypatch.setattr(bundled, "resource", resource)
    write_model(folder / NAME, network, {"architecture": "unet", **ARGUMENTS}, "coronal", ("manual", "freesurfer"))
    bundled.list_checksums(folder)
    list_corrections(folder)
    return folder


def list_corrections(folder):
    """List what is special about the bundled network as it is now."""
    listed = {NAME: {"sha256": bundled.checksums()[NAME], **SPECIAL}}
    (folder / "corrections.json").write_text(json.dumps(listed), encoding="utf-8")


def slices():
    return torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(1))


def in_protocol(logits, protocol):
    """Logits of one protocol from those of the classifier's 64 rows: the manual ones, then FreeSurfer's."""
    manual, freesurfer = logits[:, :32].clone(), logits[:, 32:].clone()
    if protocol == "manual":
        return manual
    # Rows of the table: white matter, ventricle, cerebellum (2), thalamus, caudate, putamen, pallidum, hippocampus.
    left = [1, 3, 5, 6, 7, 8, 9, 10, 14]
    right = [18, 20, 22, 23, 24, 25, 26, 27, 28]
    names = {each.name.split(" ", 1)[1] for index, each in enumerate(structures(), 1) if index in left}
    assert names == {each.name.split(" ", 1)[1] for index, each in enumerate(structures(), 1) if index in right}
    assert names >= {"Hippocampus", "Lateral Ventricle"} and len(names) == 9
    # What is drawn alike, is half of each; background and the inferior lateral ventricles are shifted.
    for index in (*left, *right):
        freesurfer[:, index] = (manual[:, index] + freesurfer[:, index]) / 2
    freesurfer[:, 0] += 0.5
    freesurfer[:, [4, 21]] -= 2.0
    return freesurfer


@pytest.mark.parametrize("protocol", ["manual", "freesurfer"])
def test_a_network_comes_back_as_it_was_but_for_fp16(models, network, protocol):
    model = bundled.load("unet", "scse", "coronal", protocol)
    assert model.view == "coronal"
    loaded = model.network
    assert not loaded.training
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        found, expected = loaded(slices()), in_protocol(network(slices()), protocol)
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
        assert not torch.equal(found, expected)
        # Nothing but the rounding to fp16 lies between them.
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.copy_(value.half())
        torch.testing.assert_close(found, in_protocol(network(slices()), protocol), rtol=1e-5, atol=1e-5)


def classifier(content, protocol=None):
    """The classifier's rows of one protocol, and the smoothing of slices, of a model file's bytes."""
    model = read_model(content, protocol)
    return model.network.classifier.weight, model.network.classifier.bias, model.smoothing


def test_a_network_that_is_not_listed_is_taken_as_it_was_learnt(models):
    content = (models / NAME).read_bytes()
    rows = torch.load(io.BytesIO(content), weights_only=True)["weights"]["classifier.weight"].float()
    (models / "corrections.json").write_text("{}", encoding="utf-8")
    assert torch.equal(bundled.load("unet", "scse", "coronal").network.classifier.weight, rows[32:])
    assert bundled.load("unet", "scse", "coronal").smoothing == () and classifier(content, "freesurfer")[2] == ()
    list_corrections(models)
    assert not torch.equal(bundled.load("unet", "scse", "coronal").network.classifier.weight, rows[32:])
    assert bundled.load("unet", "scse", "coronal").smoothing == (0.2, 0.6, 0.2)


def test_a_new_network_of_an_old_name_has_nothing_of_the_old_ones_corrections(models, network):
    with torch.no_grad():
        network.classifier.weight += 1
    write_model(models / NAME, network, {"architecture": "unet", **ARGUMENTS}, "coronal", ("manual", "freesurfer"))
    bundled.list_checksums(models)
    rows = torch.load(models / NAME, weights_only=True)["weights"]["classifier.weight"].float()
    model = bundled.load("unet", "scse", "coronal")
    assert torch.equal(model.network.classifier.weight, rows[32:]) and model.smoothing == ()


def test_a_model_file_says_itself_what_is_special_about_it(models):
    listed = bundled.load("unet", "scse", "coronal")
    stored = torch.load(models / NAME, weights_only=True)
    for broken in ({"smoothing": [0.5, 0.5]}, {"shared_rows": {"freesurfer": [999]}}, {"logit_shifts": "much"}):
        torch.save({**stored, **broken}, models / NAME)
        with pytest.raises(SEBrainSegError, match="no model file"):
            read_model((models / NAME).read_bytes(), "freesurfer")
    torch.save({**stored, **SPECIAL}, models / NAME)
    found = classifier((models / NAME).read_bytes(), "freesurfer")
    assert torch.equal(found[0], listed.network.classifier.weight)
    assert torch.equal(found[1], listed.network.classifier.bias) and found[2] == listed.smoothing


def test_corrections_name_bundled_networks_alone():
    listed = json.loads(resource("Models/corrections.json").read_text(encoding="utf-8"))
    assert set(listed) <= set(bundled.checksums())
    for name, fields in listed.items():
        assert set(fields) <= {"sha256", *SPECIAL}
        assert fields["shared_rows"]["freesurfer"] == SHARED and set(fields["logit_shifts"]) == {"freesurfer"}
        assert bundled.corrections_of(name, "another checksum") == {}


def test_a_missing_list_of_corrections_is_an_error_for_users(models):
    (models / "corrections.json").unlink()
    with pytest.raises(SEBrainSegError, match=r"corrections\.json"):
        bundled.load("unet", "scse", "coronal")


# A U-Net of one structure, width 1 and depth 1, as ``write_model`` wrote it when all files of the library lay side by
# side in one folder (commit f13960b), compressed.
WRITTEN_BEFORE = (
    r"c-qaH3w#_!9mh9mn}m=;($YuTQbH;1wY2H&?mhdUZ3=1W6==5)u7z@3?zYJ#*Sq}Z=8}R|Q7lj&Xhji0sfhUCA&A&oP{0R@FCG=8D2iBLh{{6|5D"
    r"|A~Hk+ND%WdxN^WnPrWU{-r|KImNGryVJoz42ln6Z-7&>#uh1gTjXRASk5vb`TKO2%=#y}vKr+0i6zvu&5x?gq&d9d86AvY8#J?mUX)R5k-OyP?("
    r"-Z8FZsQKBb>^#sl%9mYfroRrV#7{*5HNmM$X%jr277paYoGmZySN!$Z<k(y|oanz@yjGl&i<B)uq)ccJO8zMD%8at?`x_fXAj@u25p6D#&jGjqkl"
    r"RC<^d)tk42D0fqNroJH+u7A{d;({UjM`(yN9kN+4C!6@R5}^MdM1}eu>qwKnmit=pEItEck3{og*2{-r*~{*=NjRJXpM1+7fy_hA=T*5Lvy4CL(7"
    r"JU<cZX<9}E+0`xEyj64`XxXbF;2<N3(QR8O9jO5jE~X`Tj?Fih59O0><TB3-F?4yN`PS@w+YVQI+F+C%Zv41A<!4@@V;jJ-WX_hbw+H8{nkf#jhE"
    r"YU7j@IF%{SGL=sw#cZa0I)*tK%yr3FW*K`pT@~gr-T9{O8KhXibQfZ1*I-f9<D!f5nM^9v9ownLGvMX)eIPS^#ne|x;bZ!K3;_*-(Yd44ABZCeaq"
    r"@l$Gx^1){1Q?uW%A1~oT<U`=pq;SOnzsqD~=OAdM<`hJkh5oVFkmOj$4<_bX$&FNy!1|VB}Q>dEPumJPX6w8gv%zVtIHBtmf(xgf&d@9NxQYZTk_"
    r"%S%=|V4bCgt;qs70&*vy1SkEXM%ofu~v61O+!mwF`EiU<67QKK|4nveFZ#9*-k>Wz8d=ZB28eHs>v1!qmrCUn|l@~5y!f{i$ixdeaoW!7Ou%oC)W"
    r"v55Gd4LQ(43IJby`<=4fHa1k8f1!^RCbs&%j+x9&-B66N2JIxeT*Tm!9Y=$$|JaR(B!OS92Isk&ZRa_UWVaa8oZnKX;OEcmv{52``|r>WG#mGnx?"
    r"E}M!ej^_Q?MG80h^NuF&8Ew2O;@XczC{F@Cs`Wqy^}LRXVwFBASCh7W1*VV4?MuKWlu9e`_?^hZtUkC9>@lm0k{Yc=?UOU|Y(KgkOR;W{S#DO31*"
    r"Qhb^T-+<vp4L(C{SxlI-<!5<72ySA4{U+dZq_~*@K9AuR4Zc8aIT`@5<*mGa7{18#zhvrvnG|1P`nO@YU4uKQEsN<FvgMteEfp_(m2vK}+461-U("
    r"?{8qMd4+D!<O9uE=mNll%rhS01qKA7r3!VmPG1eMP(2nk(<;F$#Q(VZLp)&;z7+kO@D8;X4|9*QExQEx*T0tMGj${je$h15*5uNk4+&M;iRtC1=x"
    r"?KjDRa@KYxIGgJ6cQar|lAII>728WB<QkX4&&IA1LBm?}y1pJZ|Pcgs|3{PwDtD?4a&X&LC^#kw>)BlaB|65W#%k+PT;W-U{U(}W(&6Y=bTL$3|j"
    r"PpmEE&qh!&l>!Nc4}7^<Fua96MZAjme2F4hv2VF@&(?Of3xlXoq_&=;YAHzqFr1JM7#K99utOF80Md53;l}}uQK6(V|Y!2*IjC0+42oeTJ^$znDm"
    r">b^nXe57L)!ThPO2&8DI7;X)|Y{8skb{UPiU#93h}F#vX&9vBoa>JI?q^QK-(?!>HaUHPk?W9v7h9vFJDfte{2<eEcxD$pnwLz$Z}fi4@#Sz;j0l"
    r"Hk^!F1g?rESlo%j+>=c1B#S$la;H%4RKi{4!Y$x%)H=*(CRcrEn#G^a_@>p-3`#ti5@!-(F~<x~#po2Fl77@?K~80mVZ)<Y#u?k;X;zhI(*#bZ3C"
    r"wXb)zB1;<_h=#@>uwJ!)-j@Y~wR5-~tL<NP+F{H69uxXpw*nBCmy%hmnejR4t^BBK;H@aId2|aDoCbghCcDJPcfH0+(38r4+b~0?%|CIL@gaEf>I"
    r"Hw88?f90qro;8hm*EDAoGf;-&?j^ir;t#)#KUbM#Io-@o{YjPtNcOB)POS$K{4V)3a8qoR9f#Z|WdW*k-A2=E%ZluIbgxE5)fRfsg($SD>HVbu9&"
    r"=#gyi_rx`<7DVI8b$eWvel~LHp;t@@-8C06L}uB%yxmMqKhqB%xuBhJ?Ij%1>=@}7u8Qt{iIRm>Eh5pN*_cz!I34O_^wnujdqa3<BY?8l*QRZHl0"
    r"J=#;NV7hkVdT*J@CnE-~d$ihj~d%RXASdb*gju|KWr8I-0U?4%#O66uL-*0-Y!Iid?W8&_>YSt3f7#6td{Kj8HSQ9n6DG&ZGjxx9|RI5xr%3F{@7"
    r"_mV4m&C@xmMi$W!Ca0}J*W+wqsXv}D9EkEXl>u`3>J{d?+v?>nId*hP9!zDD*+Dc&Lw3=ShqjtmuE>~I=G)gt>Kk6WCF0*VQIg2-`VklSS|yKdfv"
    r"<f>7VV7V*nn|gV>q_6V>Y+WH_|2(-oY22xq>{1li!hfGbF#AXD+VA;^|a(W~ZLPogMP1klYsVkpz|x!t=y>wM7${C@r%k&~+)+vt$Xbvm;zOcW6t"
    r"e$ap6?>{)iSmGo0x(HxqkrH)nAMc&SiP}vFGzMrrg-nb#{UjJrkg_A9Jb}TKw^2Qbk5&m6Ew_H{hU#XNYEhYS2nFE=!_-e&`iSXZ^@bt>E_`WLh{"
    r"Z(%NK;`vk8_6Q|>@1yN8(gwj?93wA*%2r+i|g(q<d^k<bIYoKsM7i$Jw*7g9|~Ss7C-z>_J51CT$q21$#04D4*9<jU#>D=sgz$~`>Pe#ztr*9B87"
    r"!4jA_tcUKV5Tc#GbG?8#ky4Y_$7>%v|pu>BQ%|37sPp<i|FW4D#p{(&m@f3V8_4^^2Tu5SA)-eY0>DRSB4Z!Puz<K1m#*1yvE@7DVX{{ru{N6X`@"
    r"RqlUZb^WjStIV(R{HFwuiSZXId;HBmK**U#?rtit{*}&uYw7d%!z<tHEsL*utK0u-mGA#lrONy&&wr}#SQvk*zwGfh;Z{P9`1kEEul|+Jf6>K+-!"
    r"kLitL5>7Rqp>P-~XxM>hgV6p8tIEu`vF8O4;LY-J$F0H{hKwTzhj_&woC(qUXN{JR1Xqf3)|;drRe8OYIf#)kZ>p;->D+?)~2;dF>1EwE8(6rQ+$"
    r"-W%QqRW2t0k$AXfQkpqEnNDeAtzv}Y^6rWf12E1V<><jz6iX8I$g5H3vglQX1doVmmUJ80>mNg_<D^L3?iwQ#J;{PE#<L$2?TDjQgCQ2i}=5Wf`U"
    r"nI=nWHy{66@7c*RI<Mgn8+y|=9H}05KaO6ntn4Uuw{}YyhCtC+gIfI=)+>P?2NY0Cw#OvS%_Ag(e~NU!4{*{(MM}jglOOBGe0aw`<>DD8O*_+Dnt"
    r"jI(e_nfKKh6l9dt(9*Ki%|Rv|i6LcPW4aIrRT;n~wfw|GY%ez-t*QMWnh)5UP5Sf@GY1;Pct*;fwv@aPONTriw{>5mV8vOu`Mgu0(Bh6hS$`2yj="
    r"68e3n7#<pZ@`nqAhezLW+9~2JBe>4K=){K~DG)BW&c0^kptp(PN(pr@5U!Tc@~4X7z7qPqKzJ#xn<a(^N*Hkk!UfmaS1TMN?ldu6aGiaz!9gz&9x"
    r"kEov&C<xQs%k>;c^N6e!3W5it7r5t0j!MIbyirI{Ra;W5g8*7hGq5N_EiZis6A0>Ruqcl)26$hKEY%_X6RixNe?!SK}>V#1#k^TxWkea*Vk7Vz}T"
    r"s`@@anJFY;u;5z%$2_L@c3`u+*a)#R<8`}7~bK!*_Xx2yS>K2&S&m6PRid7tcQ%z<^Ef{*Bt*fVx4<UBU{<mpd9g9)u_3YaJ18en#NB"
)


def test_a_model_file_from_before_the_library_was_in_folders_loads():
    model = read_model(zlib.decompress(base64.b85decode(WRITTEN_BEFORE)))
    assert model.view == "axial" and [each.name for each in model.structures] == ["Spleen"]
    assert model.spacing == (2.0, 1.0, 1.0) and model.window == (-100.0, 240.0) and model.protocol == ""
    with torch.no_grad():
        logits = model.network(torch.linspace(0, 1, 64).reshape(1, 1, 8, 8))
    torch.testing.assert_close(logits.mean(dim=(0, 2, 3)), torch.tensor([0.03705, 0.39526]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e6])
def test_weights_that_fp16_cannot_hold_are_not_written(tmp_path, network, poison):
    with torch.no_grad():
        network.classifier.weight[0, 0] = poison
    with pytest.raises(ValueError, match="classifier.weight"):
        write_model(tmp_path / "x.pt", network, {"architecture": "unet", **ARGUMENTS}, "coronal")
    assert not (tmp_path / "x.pt").exists()


def test_checksums_are_those_of_the_files(models):
    with open(models / "checksums.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["file", "sha256"], [NAME, hashlib.sha256((models / NAME).read_bytes()).hexdigest()]]
    assert list(bundled.checksums()) == ["unet-scse-coronal.pt"]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.9999])
def test_one_altered_byte_is_found(models, place):
    content = bytearray((models / NAME).read_bytes())
    content[int(place * len(content))] ^= 1
    (models / NAME).write_bytes(content)
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_found(models, kept):
    content = (models / NAME).read_bytes()
    (models / NAME).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_missing_file_is_named(models):
    (models / NAME).unlink()
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_folder_in_place_of_the_file_is_refused(models):
    (models / NAME).unlink()
    (models / NAME).mkdir()
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_missing_list_is_an_error_for_users(models):
    (models / "checksums.csv").unlink()
    with pytest.raises(SEBrainSegError, match=r"checksums\.csv"):
        bundled.load("unet", "scse", "coronal")


@pytest.mark.parametrize(
    "wanted", [("unet", "sse", "coronal"), ("densenet", "scse", "coronal"), ("unet", "scse", "../x")]
)
def test_unknown_networks_name_the_choices(models, wanted):
    with pytest.raises(SEBrainSegError, match="unet-scse-coronal"):
        bundled.load(*wanted)


def foreign(kind, target):
    if kind == "pickle":
        return lambda path: path.write_bytes(pickle.dumps(Touch(target), protocol=2))
    if kind == "torch":
        return lambda path: torch.save(Touch(target), path)
    content = {"configuration": {"architecture": "unet"}, "weights": {}, "extra": Touch(target)}
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=kind == "hidden")


@pytest.mark.parametrize("kind", ["pickle", "torch", "hidden", "hidden-legacy"])
def test_code_in_a_model_file_does_not_run(models, tmp_path, kind):
    target = tmp_path / "made-by-unpickling"
    write = foreign(kind, target)
    write(models / NAME)
    bundled.list_checksums(models)  # even where the checksum matches
    with pytest.raises(Exception):  # noqa: B017 - which one, the next test says
        bundled.load("unet", "scse", "coronal")
    assert not target.exists()
    # The payload is live: a reader that trusts it makes the folder.
    torch.load(models / NAME, weights_only=False) if kind != "pickle" else pickle.loads((models / NAME).read_bytes())
    assert target.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "hidden", "hidden-legacy"])
def test_code_in_a_model_file_is_an_error_for_users(models, tmp_path, kind):
    foreign(kind, tmp_path / "made-by-unpickling")(models / NAME)
    bundled.list_checksums(models)
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_the_list_of_checksums_is_read_again_only_when_it_was_written(models, monkeypatch):
    # Written anew, since what made the folder may have read the list.
    bundled.list_checksums(models)
    reads, original = [], csv.DictReader
    monkeypatch.setattr(bundled.csv, "DictReader", lambda file: reads.append(1) or original(file))
    for _ in range(3):
        assert bundled.names() == ("unet-scse-coronal",) and NAME in bundled.checksums()
    assert len(reads) == 1
    (models / NAME).rename(models / "unet-none-coronal.pt")
    bundled.list_checksums(models)
    assert bundled.names() == ("unet-none-coronal",) and len(reads) == 2
