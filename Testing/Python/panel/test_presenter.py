"""What the panel shows and does, with fakes for the run, the scene and the application."""

from types import SimpleNamespace

import pytest

from SEBrainSegLib.analysis import volume_table
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.panel import self_test
from SEBrainSegLib.panel.presenter import Presenter
from SEBrainSegLib.panel.selection import Choices


class Node:
    """A node of the fakes."""

    def __init__(self, name, **fields):
        self.name, self.there, self.shown = name, True, False
        vars(self).update(fields)

    def GetName(self):
        return self.name


class Run:
    def __init__(self):
        self.running, self.started = False, []

    def start(self, image, job, known=()):
        job.checked()
        self.running, self.known = True, known
        self.started.append((image, job))

    def start_surfaces(self, labelmaps, settings):
        self.running, self.surfaces = True, labelmaps

    def cancel(self):
        if self.running:
            self.running = False
            self.tell_cancelled()


class Scene:
    """A volume is a node with ``voxels``, ``None`` for none; its segmentations are kept by voxels and parameters."""

    def __init__(self):
        self.made, self.groups, self.in_3d = [], {"Ventricles": True}, False
        self.otherwise, self.surfaces = False, []
        self.maps_made, self.over, self.asked = {}, None, None
        self.sequence, self.added = (), None

    def problem(self, volume, bundled):
        if volume is None:
            return "Choose a volume."
        return "" if volume.voxels is not None else "It has no voxels."

    def doubt(self, volume):
        return getattr(volume, "doubt", "")

    def is_there(self, node):
        return node is not None and node.there

    def content_of(self, volume):
        return volume.voxels

    def image_of(self, volume):
        return f"image of {volume.name}"

    def find_result(self, volume, kind, parameters):
        assert kind == "segmentation"
        fits = (
            node for node in self.made if node.there and node.of == (volume, volume and volume.voxels, parameters.se)
        )
        return next(fits, None)

    def add_segmentation(self, volume, segmentation, voxels):
        if volume.voxels != voxels:
            raise SEBrainSegError("The volume was changed.")
        of = volume, voxels, segmentation.parameters.se
        node = Node(f"{volume.name} {segmentation.parameters.se}", of=of, structures=segmentation.structures)
        self.made.append(node)
        return node

    def remember_confidences(self, node, segmentation):
        node.confidences = segmentation.confidences

    def show_only(self, node):
        for each in self.made:
            each.shown = each is node

    def remove(self, node):
        node.there = False

    def segmentation_of(self, node, labels=True):
        parameters = Parameters(se=node.of[2])
        fits = labels and node.there
        fields = {"structures": node.structures, "parameters": parameters, "seconds": 0.0, "device": ""}
        return SimpleNamespace(labels="labels" if fits else None, **fields)

    def groups_shown(self, node):
        return dict(self.groups)

    def show_group(self, node, group, visible):
        self.groups[group] = visible

    def has_surfaces(self, node):
        return self.in_3d

    def labelmaps_of(self, node):
        return None if self.otherwise else (["labelmap"], "settings")

    def add_surface(self, node, name, surface):
        self.surfaces.append((name, surface))

    def make_surfaces(self, node):
        for name in ("one", "two", "three"):
            yield 0.3, name

    def show_surfaces(self, node, visible):
        self.in_3d = visible

    def find_maps(self, volume, parameters, block, confidence):
        return self.maps_made.get((volume, parameters.se, block, confidence), ())

    def add_maps(self, volume, segmentation, voxels, pause):
        pause()
        nodes = Node("spatial"), Node("chart")
        self.maps_made[volume, segmentation.parameters.se, segmentation.block, segmentation.sure] = nodes
        return nodes

    def show_maps(self, volume, nodes, outlined):
        self.over, self.outlined = nodes[0], outlined
        return nodes[-1] if nodes[-1].name == "chart" else None

    def map_shown(self, volume):
        return self.over

    def hide_maps(self, volume):
        self.over = None

    def outline(self, volume, outlined):
        self.outlined = outlined

    def add_compared(self, volume, differences, voxels, consensus, pause):
        pause()
        self.asked = [each.parameters.se for each in differences.segmentations], consensus
        nodes = [
            self.find_result(volume, "segmentation", each.parameters) or self.add_segmentation(volume, each, voxels)
            for each in differences.segmentations
        ]
        return SimpleNamespace(
            segmentations=nodes, table=Node("table"), disagreement=Node("disagreement"), consensus=None
        )

    def comparison_of(self, volume):
        return None

    def add_volumes(self, segmentation, rows):
        return Node(f"{segmentation.name} volumes", rows=rows)

    def items(self, volume):
        return self.sequence

    def add_segmentations(self, volume, segmentations, pause):
        pause()
        self.added = list(segmentations)
        return Node("sequence")


class Application:
    def __init__(self):
        self.settings, self.chart, self.seen, self.refusal = {}, None, [], None
        self.while_preparing = lambda: None
        self.while_processing = lambda: None

    def ensure_torch(self):
        self.while_preparing()
        if self.refusal:
            raise SEBrainSegError(self.refusal)

    def process_events(self):
        self.seen.append(self.state().status)
        self.while_processing()

    def show_chart(self, chart):
        self.chart = chart

    def setting(self, key, default):
        return self.settings.get(key, default)

    def set_setting(self, key, text):
        self.settings[key] = text


ROWS = [
    {"structure": "Hippocampus", "left_ml": 4.0, "remark": ""},
    {"structure": "Brain Stem", "left_ml": "", "remark": "a, b"},
]


def facts(parameters):
    if parameters.model:
        return None
    increase = 0.0 if parameters.se == "none" else 2.85
    return SimpleNamespace(parameters=1234567, increase=increase, dice=0.8244, seconds=21.4)


@pytest.fixture
def all_of_it(monkeypatch, tmp_path):
    """The presenter and its fakes; U-Nets are bundled, in coronal view."""
    monkeypatch.setattr(bundled, "names", lambda: [f"unet-{se}-coronal" for se in ("none", "cse", "sse", "scse")])
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path))
    monkeypatch.setattr(bundled, "facts", facts)
    monkeypatch.setattr(volume_table, "rows", lambda segmentation: ROWS)
    it = SimpleNamespace(scene=Scene(), application=Application(), run=Run(), changes=[])

    def make_run(progress, finished, failed, cancelled):
        it.run.tell_cancelled = cancelled
        return it.run

    it.presenter = Presenter(it.scene, it.application, make_run, lambda: it.changes.append(1))
    it.application.state = it.presenter.state
    it.volume = Node("T1", voxels="abc")
    it.presenter.choose(Choices(it.volume))
    return it


def choose(it, volume="T1", **parameters):
    """Choose anew; names of fields of Choices are theirs."""
    others = {name: parameters.pop(name) for name in Choices._fields if name in parameters}
    volume = it.volume if volume == "T1" else volume
    it.presenter.choose(Choices(volume, Parameters(**parameters), **others))


def finish(it, seconds=0.0, device="cpu", implausibility=""):
    """Let the run give what it was asked for."""
    _, job = it.run.started[-1]
    it.run.running = False
    made = tuple(
        SimpleNamespace(
            parameters=parameters,
            device=device,
            seconds=seconds,
            confidences={},
            structures=("Hippocampus",),
            block=job.excitation,
            sure=job.confidence,
            implausibility=implausibility,
        )
        for parameters in job.choices
    )
    if job.compared:
        made = SimpleNamespace(segmentations=job.in_order(made, it.run.known))
    it.presenter.on_finished(made)


def state(it):
    return it.presenter.state()


# Apply ---------------------------------------------------------------------------------------------------------------


def test_apply_can_work_or_says_why_not(all_of_it):
    it = all_of_it
    assert state(it).apply.enabled and state(it).status == "Ready: press Apply."
    choose(it, volume=None)
    assert state(it).apply == (False, "Choose a volume.") and state(it).status == "Choose a volume."
    choose(it, view="axial")
    assert not state(it).apply.enabled and "No U-Net scSE is bundled" in state(it).apply.text
    it.presenter.choose(None)
    assert not any(action.enabled for action in (state(it).apply, state(it).compare, state(it).maps))


def test_a_run_is_shown_and_its_result_said(all_of_it):
    it = all_of_it
    it.presenter.apply()
    assert state(it).busy and state(it).cancel.enabled and not state(it).apply.enabled and state(it).percent == 0
    it.presenter.on_progress(0.456, "Halfway")
    assert (state(it).percent, state(it).status) == (46, "Halfway")
    finish(it)
    assert state(it).percent is None and not state(it).cancel.enabled
    said = "Created 'T1 scse', computed on cpu. Under Result, the table of volumes has remarks on: Brain Stem."
    assert state(it).status == said and state(it).result_name == "T1 scse"


def test_nothing_starts_twice(all_of_it):
    it = all_of_it
    it.application.while_preparing = it.presenter.apply
    it.presenter.apply()
    it.presenter.apply()
    it.presenter.show_maps()
    assert len(it.run.started) == 1


def test_errors_are_said_and_can_be_repeated(all_of_it):
    it = all_of_it
    it.application.refusal = "PyTorch was not installed."
    it.presenter.apply()
    assert state(it).status == "PyTorch was not installed." and state(it).apply.enabled
    it.application.refusal = None
    it.presenter.apply()
    it.run.running = False
    it.presenter.on_failed("Only 3 ml of brain.")
    assert state(it).status == "Only 3 ml of brain." and state(it).apply.enabled
    it.presenter.apply()
    it.volume.voxels = "changed"
    finish(it)
    assert state(it).status == "The volume was changed." and not it.scene.made


def test_what_was_refused_as_unlikely_can_be_shown_all_the_same(all_of_it):
    it = all_of_it
    assert not state(it).accept.enabled
    it.presenter.apply()
    it.run.running = False
    it.presenter.on_failed("The cerebellum lies above the thalamus.", True)
    assert state(it).status == "The cerebellum lies above the thalamus." and state(it).accept.enabled
    it.presenter.accept_unlikely()
    (_, first), (_, job) = it.run.started
    assert job.choices == first.choices and not first.accept_unlikely and job.accept_unlikely
    finish(it, implausibility="The cerebellum lies above the thalamus.")
    assert state(it).status.endswith("It is unlikely to be right: The cerebellum lies above the thalamus.")
    assert state(it).result_name == "T1 scse" and not state(it).accept.enabled


@pytest.mark.parametrize("after", ["another error", "another choice", "closed", "removed", "changed"])
def test_what_was_refused_is_not_offered_for_something_else(all_of_it, after):
    it = all_of_it
    it.presenter.apply()
    it.run.running = False
    it.presenter.on_failed("Unlikely.", True)
    if after == "another error":
        it.presenter.apply()
        it.run.running = False
        it.presenter.on_failed("Memory ran out.")
    elif after == "another choice":
        choose(it, se="none")
    elif after == "closed":
        it.presenter.close()
    elif after == "removed":
        it.presenter.node_removed(it.volume)
    else:
        it.presenter.volume_changed()
    assert not state(it).accept.enabled
    it.presenter.accept_unlikely()
    assert not it.run.running


def test_an_unforeseen_error_leaves_a_panel_that_works(all_of_it):
    it = all_of_it
    it.presenter.apply()
    it.scene.show_only = lambda node: 1 / 0
    with pytest.raises(ZeroDivisionError):
        finish(it)
    assert "could not be added" in state(it).status and state(it).apply.enabled


def test_cancelled_removed_closed(all_of_it):
    it = all_of_it
    it.presenter.apply()
    it.presenter.cancel()
    assert "Cancelled" in state(it).status and not it.scene.made
    it.presenter.apply()
    it.presenter.node_removed(Node("another"))
    assert it.run.running
    it.presenter.node_removed(it.volume)
    assert not it.run.running and "'T1' was removed" in state(it).status
    it.presenter.apply()
    it.presenter.close()
    assert not it.run.running and not state(it).apply.enabled


def test_word_of_what_happened_outlives_the_volume(all_of_it):
    it = all_of_it
    it.presenter.apply()
    it.presenter.node_removed(it.volume)
    choose(it, volume=None)
    assert "'T1' was removed" in state(it).status
    it.presenter.volume_changed()
    assert state(it).status == "Choose a volume."


def test_a_volume_that_went_while_pytorch_was_installed(all_of_it):
    it = all_of_it
    it.application.while_preparing = lambda: setattr(it.volume, "there", False)
    it.presenter.apply()
    assert not it.run.started and "removed" in state(it).status


# Variants that were computed before ----------------------------------------------------------------------------------


def segment(it, **parameters):
    choose(it, **parameters)
    it.presenter.apply()
    finish(it)
    return it.scene.made[-1]


def test_going_back_to_a_variant_shows_it_at_once(all_of_it):
    it = all_of_it
    scse, none = segment(it, se="scse"), segment(it, se="none")
    assert (scse.shown, none.shown) == (False, True)
    choose(it, se="scse")
    assert (scse.shown, none.shown) == (True, False) and state(it).result_name == "T1 scse"
    assert "earlier run" in state(it).status and "made so before" in state(it).apply.text
    it.presenter.apply()
    assert len(it.run.started) == 2 and not it.run.running
    choose(it, se="cse")
    assert scse.shown and "new" in state(it).apply.text


def test_other_voxels_are_segmented_anew(all_of_it):
    it = all_of_it
    segment(it)
    it.volume.voxels = "other"
    it.presenter.apply()
    assert it.run.running


def test_the_visibility_of_an_opened_scene_is_kept(all_of_it):
    it = all_of_it
    node = segment(it)
    node.shown = False
    it.presenter.close()
    choose(it)
    assert not node.shown and state(it).result_name == "T1 scse"


def test_what_is_ticked_for_later_does_not_touch_the_views(all_of_it):
    it = all_of_it
    node = segment(it)
    node.shown = False
    choose(it, variants=("none", "cse"))
    choose(it, variants=("none", "cse"), consensus=True)
    assert not node.shown


# The line of facts ---------------------------------------------------------------------------------------------------


def test_facts_of_the_chosen_network(all_of_it):
    it = all_of_it
    assert state(it).facts.startswith(
        "1,234,567 parameters (+2.9 % over none) · Dice 0.824 on held-out scans · about 21 s"
    )
    choose(it, se="none")
    assert "over none" not in state(it).facts
    choose(it, view="axial")
    assert state(it).facts == ""


def test_the_time_is_the_last_one_on_this_device(all_of_it):
    it = all_of_it
    it.presenter.set_devices({"cuda:0": "A100 (cuda:0)"})
    choose(it, device="cuda:0")
    assert "of CPU time, not measured here yet" in state(it).facts
    it.presenter.apply()
    finish(it, seconds=3.6, device="cuda:0")
    assert state(it).facts.endswith("4 s on A100 (cuda:0), as last time")
    choose(it, device="cpu")
    assert state(it).facts.endswith("about 21 s of CPU time")
    choose(it, device="cuda:0", se="none")
    assert "not measured" in state(it).facts


def test_automatic_is_the_device_that_it_was_last_time(all_of_it):
    it = all_of_it
    it.presenter.apply()
    finish(it, seconds=130, device="cpu")
    assert state(it).facts.endswith("2 min on CPU, as last time")


def test_no_facts_are_made_up_for_users_models(all_of_it, tmp_path):
    (tmp_path / "knee.pt").touch()
    choose(all_of_it, model="knee")
    assert state(all_of_it).facts == "time not measured yet"


# Devices -------------------------------------------------------------------------------------------------------------


def test_gpus_are_listed_by_name_once_they_are_known(all_of_it):
    it = all_of_it
    assert list(state(it).devices) == ["auto", "cpu"]
    it.presenter.set_devices({"cuda:0": "A100 (cuda:0)", "cuda:1": "T4 (cuda:1)"})
    assert state(it).devices == {"auto": "Automatic", "cuda:0": "A100 (cuda:0)", "cuda:1": "T4 (cuda:1)", "cpu": "CPU"}


def test_a_device_that_is_missing_here_falls_back_to_automatic(all_of_it):
    it = all_of_it
    choose(it, device="cuda:1")
    assert state(it).device == "cuda:1" in state(it).devices
    it.presenter.set_devices({"cuda:0": "A100 (cuda:0)"})
    assert state(it).device == "auto"
    assert state(it).status == "This computer has no device 'cuda:1'; automatic is taken instead."
    it.presenter.apply()
    assert it.run.started[0][1].choices[0].device == "auto"


def test_cuda_without_a_number_is_the_first_gpu(all_of_it):
    it = all_of_it
    choose(it, device="cuda")
    it.presenter.set_devices({"cuda:0": "A100 (cuda:0)"})
    assert state(it).device == "cuda:0" and state(it).status == "Ready: press Apply."


# Comparison ----------------------------------------------------------------------------------------------------------


def test_compare_needs_two_variants_that_there_are(all_of_it, monkeypatch):
    it = all_of_it
    assert state(it).compare == (False, "Tick at least two variants.")
    choose(it, variants=("none", "cse"))
    assert state(it).compare.enabled
    monkeypatch.setattr(bundled, "names", lambda: ["unet-none-coronal", "unet-scse-coronal"])
    assert not state(it).compare.enabled and not state(it).variants["cse"].enabled
    assert "No U-Net cSE is bundled" in state(it).variants["cse"].text
    # It matters not what is chosen above.
    choose(it, variants=("none", "scse"), se="cse")
    assert state(it).compare.enabled and not state(it).apply.enabled


def test_users_models_have_no_variants(all_of_it, tmp_path):
    (tmp_path / "knee.pt").touch()
    choose(all_of_it, model="knee", variants=("none", "scse"))
    assert not state(all_of_it).compare.enabled and "bundled networks" in state(all_of_it).compare.text
    assert state(all_of_it).apply.enabled


def test_variants_are_segmented_in_one_run_and_compared(all_of_it):
    it = all_of_it
    choose(it, variants=("none", "cse", "scse"), consensus=True)
    it.presenter.compare()
    # Too late for this run.
    choose(it, variants=(), consensus=False)
    finish(it)
    assert len(it.run.started) == 1 and it.scene.asked == (["none", "cse", "scse"], True)
    assert it.scene.over.name == "disagreement" and it.presenter.comparison.name == "table"
    assert "Compared 3 variants" in state(it).status
    assert "Adding the comparison..." in it.application.seen and state(it).opened == ("compare", "result")
    choose(it, se="cse")
    assert "earlier run" in state(it).status


def test_what_was_segmented_before_is_compared_and_not_segmented_again(all_of_it):
    it = all_of_it
    segment(it, se="none")
    choose(it, variants=("none", "scse"))
    it.presenter.compare()
    assert [choice.se for choice in it.run.started[-1][1].choices] == ["scse"]
    assert [each.parameters.se for each in it.run.known] == ["none"]
    finish(it)
    assert it.scene.asked == (["none", "scse"], False)
    it.scene.asked = None
    # Without a network, there is no need of PyTorch.
    it.application.refusal = "PyTorch was not installed."
    it.presenter.compare()
    assert not it.run.started[-1][1].choices and [each.parameters.se for each in it.run.known] == ["none", "scse"]
    finish(it)
    assert it.scene.asked == (["none", "scse"], False) and "Compared 2 variants" in state(it).status
    it.scene.made[0].structures = ()
    it.presenter.compare()
    assert "other structures by now" in state(it).status and not it.run.running


def test_a_comparison_can_be_cancelled_and_leaves_nothing(all_of_it):
    it = all_of_it
    choose(it, variants=("none", "scse"))
    it.presenter.compare()
    cancellable = []

    def cancel():
        cancellable.append(state(it).cancel.enabled and state(it).busy)
        it.presenter.cancel()

    it.application.while_processing = cancel
    finish(it)
    assert cancellable == [True] and it.scene.asked is None and not it.scene.made
    assert "Cancelled" in state(it).status and state(it).compare.enabled
    it.application.while_processing = lambda: it.presenter.close()
    it.presenter.compare()
    finish(it)
    assert not it.scene.made and not state(it).busy


def test_a_segmentation_that_went_during_its_comparison_is_said(all_of_it):
    it = all_of_it
    node = segment(it, se="none")
    choose(it, variants=("none", "scse"))
    it.presenter.compare()
    node.there = False
    finish(it)
    assert state(it).status == "'T1 none' was deleted; compare again." and it.scene.asked is None


# Recalibration maps --------------------------------------------------------------------------------------------------


def test_maps_need_a_block_or_the_confidence(all_of_it):
    it = all_of_it
    assert "decoder 1" in state(it).blocks and not state(it).maps.enabled
    choose(it, block="decoder 1")
    assert state(it).maps.enabled
    choose(it, block="decoder 1", se="none")
    assert state(it).blocks == () and state(it).maps == (False, "Tick Confidence.")
    choose(it, confidence=True, se="none")
    assert state(it).maps.enabled


def test_maps_come_with_their_segmentation_and_are_not_computed_twice(all_of_it):
    it = all_of_it
    choose(it, block="decoder 1")
    it.presenter.show_maps()
    (_, job) = it.run.started[0]
    assert job.excitation == "decoder 1" and not job.confidence
    finish(it)
    assert it.scene.over.name == "spatial" and it.application.chart.name == "chart"
    assert [node.name for node in it.scene.made] == ["T1 scse"] and "'spatial', 'chart'" in state(it).status
    it.scene.over = it.application.chart = None
    it.presenter.show_maps()
    assert len(it.run.started) == 1 and it.scene.over and it.application.chart
    choose(it, block="decoder 1", confidence=True)
    it.presenter.show_maps()
    finish(it)
    assert len(it.run.started) == 2 and len(it.scene.made) == 1


def test_maps_that_are_cancelled_while_they_are_added_leave_nothing(all_of_it):
    it = all_of_it
    choose(it, block="decoder 1")
    it.presenter.show_maps()
    it.application.while_processing = it.presenter.cancel
    finish(it)
    assert not it.scene.made and it.scene.over is None and "nothing was created" in state(it).status


def test_structures_are_outlined_under_a_map_or_hidden_as_chosen_last(all_of_it):
    it = all_of_it
    choose(it, block="decoder 1")
    it.presenter.show_maps()
    finish(it)
    assert state(it).map_name == "spatial" and it.scene.outlined and state(it).outlined
    it.presenter.show_outlines(False)
    assert not it.scene.outlined and not state(it).outlined
    it.presenter.hide_map()
    assert state(it).map_name == "" and it.scene.over is None
    it.presenter.show_maps()
    assert it.scene.over and not it.scene.outlined


def test_a_segmentation_that_is_shown_takes_the_map_off(all_of_it):
    it = all_of_it
    none = segment(it, se="none")
    choose(it, block="decoder 1")
    it.presenter.show_maps()
    finish(it)
    assert it.scene.over
    choose(it, se="none")
    assert none.shown and it.scene.over is None


def test_a_map_that_the_user_takes_off_gives_the_fill_back(all_of_it):
    it, hidden = all_of_it, []
    choose(it, block="decoder 1")
    it.presenter.show_maps()
    finish(it)
    it.scene.hide_maps = hidden.append
    it.presenter.views_changed()
    assert not hidden
    it.scene.over = None
    it.presenter.views_changed()
    it.presenter.views_changed()
    assert hidden == [it.volume]


def test_maps_come_with_apply_if_wanted(all_of_it):
    it = all_of_it
    choose(it, with_maps=True, block="decoder 2", confidence=True)
    it.presenter.apply()
    (_, job) = it.run.started[0]
    assert (job.excitation, job.confidence) == ("decoder 2", True)
    finish(it)
    assert [node.name for node in it.scene.made] == ["T1 scse"] and it.scene.over
    it.presenter.apply()
    assert len(it.run.started) == 1 and it.scene.over and it.scene.made[0].shown
    choose(it, with_maps=True)
    it.presenter.apply()
    (_, job) = it.run.started[1]
    assert (job.excitation, job.confidence) == ("decoder 4", False)
    it.presenter.cancel()
    choose(it, with_maps=True, se="none")
    it.presenter.apply()
    (_, job) = it.run.started[2]
    assert (job.excitation, job.confidence) == ("", True)


def test_with_maps_asks_no_block_of_a_users_network_that_it_may_not_have(all_of_it, tmp_path):
    it = all_of_it
    (tmp_path / "knee.pt").touch()
    choose(it, with_maps=True, model="knee")
    it.presenter.apply()
    (_, job) = it.run.started[0]
    assert (job.excitation, job.confidence) == ("", True)


def test_how_long_maps_will_take_is_said_before(all_of_it):
    it = all_of_it
    assert state(it).maps_time == ""
    choose(it, block="decoder 1")
    assert "about 21 s of CPU time" in state(it).maps_time
    it.presenter.show_maps()
    assert state(it).maps_time == ""
    finish(it, seconds=38)
    assert state(it).maps_time == "They are there already."
    choose(it, block="decoder 2")
    assert "38 s on CPU, as last time" in state(it).maps_time


# Scenes that come and go ----------------------------------------------------------------------------------------------


def test_a_scene_that_is_loaded_is_taken_up(all_of_it):
    it = all_of_it
    of_file = segment(it)
    it.presenter.close()
    assert state(it).status != "" and "T1" not in state(it).status and state(it).opened == ()
    it.presenter.scene_changed(Choices(it.volume))
    assert state(it).result_name == of_file.name and state(it).apply.enabled
    assert state(it).status == "Ready: press Apply." and state(it).opened == ("result",)


def test_a_scene_without_what_was_shown_forgets_it(all_of_it):
    it = all_of_it
    segment(it).there = False
    it.presenter.scene_changed(Choices(it.volume))
    assert state(it).result_name == "" and not state(it).result.enabled


def test_sections_open_once_there_is_something_to_show(all_of_it):
    it = all_of_it
    assert state(it).opened == ()
    segment(it)
    assert state(it).opened == ("result",)
    segment(it, se="none")
    assert state(it).opened == ("result",)


def test_what_is_seldom_chosen_is_summed_up(all_of_it):
    it = all_of_it
    choose(it, structures="Hippocampus", device="cpu", protocol="manual")
    assert state(it).advanced == "Advanced: Neuromorphometrics (manual), Hippocampus, CPU"


# The result ----------------------------------------------------------------------------------------------------------


def test_the_result_can_be_used_once_there_is_one(all_of_it):
    it = all_of_it
    assert state(it).result == (False, "Segment a volume first.")
    node = segment(it)
    assert state(it).result.enabled and state(it).groups == {"Ventricles": True}
    it.presenter.show_group("Ventricles", False)
    assert state(it).groups == {"Ventricles": False}
    it.presenter.node_removed(node)
    assert not state(it).result.enabled and state(it).groups == {}


SURFACES = {"one": 1, "two": 2, "three": 3}


def test_surfaces_are_made_by_a_run_and_added_with_progress(all_of_it):
    it = all_of_it
    segment(it)
    it.presenter.show_3d(True)
    assert state(it).busy and state(it).cancel.enabled and not state(it).in_3d
    it.presenter.on_progress(0.5, "Making surfaces: two")
    assert (state(it).percent, state(it).status) == (50, "Making surfaces: two")
    it.application.while_processing = lambda: it.changes.append(state(it).busy and state(it).cancel.enabled)
    it.run.running = False
    it.presenter.on_finished(SURFACES)
    assert it.scene.surfaces == list(SURFACES.items()) and len(it.application.seen) == 3
    assert True in it.changes and state(it).in_3d and not state(it).busy
    it.presenter.show_3d(False)
    assert not state(it).in_3d


def test_surfaces_can_be_cancelled_or_lose_their_node(all_of_it):
    it = all_of_it
    node = segment(it)
    it.presenter.show_3d(True)
    it.presenter.cancel()
    assert not state(it).in_3d and "Cancelled" in state(it).status
    it.presenter.show_3d(True)
    it.run.running = False
    it.application.while_processing = it.presenter.cancel
    it.presenter.on_finished(SURFACES)
    assert not it.scene.surfaces and not state(it).in_3d and "Cancelled" in state(it).status
    it.application.while_processing = lambda: setattr(node, "there", False)
    it.presenter.show_3d(True)
    it.run.running = False
    it.presenter.on_finished(SURFACES)
    assert not it.scene.surfaces and not state(it).busy and "was deleted" in state(it).status


def test_surfaces_that_the_run_cannot_make_are_made_here(all_of_it):
    it = all_of_it
    segment(it)
    it.presenter.show_3d(True)
    it.run.running = False
    it.presenter.on_failed("No VTK.")
    steps = ["Making surfaces: one", "Making surfaces: two", "Making surfaces: three"]
    assert it.application.seen == steps and state(it).in_3d and not state(it).busy
    it.presenter.show_3d(False)
    it.scene.otherwise, it.application.seen = True, []
    it.application.while_processing = it.presenter.cancel
    it.presenter.show_3d(True)
    assert it.application.seen == steps[:1] and not state(it).in_3d and "cancelled" in state(it).status


def test_volumes_are_copied_saved_and_added(all_of_it, tmp_path):
    it = all_of_it
    segment(it)
    assert it.presenter.volumes_text() == "structure\tleft_ml\tremark\nHippocampus\t4.000\t\nBrain Stem\t\ta, b\n"
    path = tmp_path / "volumes.csv"
    it.presenter.save_volumes(str(path))
    assert path.read_text(encoding="utf-8").splitlines()[2] == 'Brain Stem,,"a, b"' and "Saved" in state(it).status
    it.presenter.save_volumes(str(tmp_path / "missing" / "volumes.csv"))
    assert "cannot be written" in state(it).status
    it.presenter.add_volumes()
    assert it.presenter.table.rows == ROWS and "T1 scse volumes" in state(it).status


# Sequences -----------------------------------------------------------------------------------------------------------


def test_a_sequence_is_segmented_one_by_one(all_of_it):
    it = all_of_it
    assert not state(it).has_sequence and not state(it).sequence.enabled
    it.scene.sequence = Node("first", voxels="1"), Node("second", voxels="2")
    assert state(it).has_sequence and state(it).sequence.enabled
    it.presenter.segment_sequence()
    it.presenter.on_progress(0.5, "Halfway")
    assert (state(it).percent, state(it).status) == (25, "Volume 1 of 2: Halfway")
    finish(it)
    assert it.run.running and it.run.started[1][0] == "image of second"
    it.presenter.on_progress(0.5, "Halfway")
    assert (state(it).percent, state(it).status) == (75, "Volume 2 of 2: Halfway")
    finish(it)
    assert len(it.scene.added) == 2 and state(it).status == "Created 'sequence' with 2 segmentations."
    assert not it.scene.made


def test_a_sequence_that_is_cancelled_leaves_nothing(all_of_it):
    it = all_of_it
    it.scene.sequence = Node("first", voxels="1"), Node("second", voxels="2")
    it.presenter.segment_sequence()
    finish(it)
    it.presenter.cancel()
    assert it.scene.added is None and "Cancelled" in state(it).status and state(it).sequence.enabled


# The self-test -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, said", [("", "The self-test passed."), ("30, not 31.", "The self-test failed: 30, not")]
)
def test_the_self_test_is_a_run_like_any_other(all_of_it, monkeypatch, wrong, said):
    it, sample, checked = all_of_it, Node("sample", voxels="sample"), []
    monkeypatch.setattr(self_test, "problem", lambda segmentation: checked.append(segmentation) or wrong)
    it.presenter.self_test(sample)
    assert state(it).busy and state(it).cancel.enabled and it.run.started[0][0] == "image of sample"
    finish(it)
    assert [each.parameters for each in checked] == [Parameters()] and checked[0].labels
    assert state(it).status.startswith(said) and not state(it).busy
    assert "Install the extension again" in state(it).status or not wrong
    assert sample.there and state(it).result_name == "sample scse"


def test_a_self_test_that_is_not_finished_leaves_nothing(all_of_it):
    it, sample = all_of_it, Node("sample", voxels="sample")
    it.application.refusal = "PyTorch was not installed."
    it.presenter.self_test(sample)
    assert not sample.there and state(it).status == "PyTorch was not installed."
    it.application.refusal, sample.there = None, True
    it.presenter.self_test(sample)
    it.presenter.cancel()
    assert not sample.there and "Cancelled" in state(it).status
    sample.there = True
    it.presenter.self_test(sample)
    # It is on its way already.
    it.scene.remove = None
    it.presenter.node_removed(sample)
    assert not it.run.running and "'sample' was removed" in state(it).status


def test_the_presenter_needs_neither_qt_nor_torch():
    import subprocess
    import sys

    from SEBrainSegLib.panel import presenter

    code = (
        "import sys; sys.modules['slicer'] = None; import SEBrainSegLib.panel.presenter; "
        "print([name for name in ('torch', 'qt', 'PySide6') if name in sys.modules])"
    )
    folder = presenter.__file__.rsplit("SEBrainSegLib", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
