"""Volume nodes of maps: confidence, excitation, disagreement; and how they are shown."""

import numpy as np
import vtk

from ..choices.vocabulary import Variant
from ..lazy import sitk
from ..translation import tr as _
from . import slice_views
from .hierarchy import attach_to_volume
from .provenance import (
    CHANNELS,
    CONFIDENCE,
    DISAGREEMENT,
    SPATIAL,
    all_or_nothing,
    find_result,
    in_steps,
    record_origin,
    refuse_changed,
)
from .table_nodes import add_channels
from .volume_nodes import ijk_to_ras, set_voxels

# Of a map in [0, 1] whatever is above this is shown: 0 is where nothing was computed.
_LEAST_SHOWN = 1e-6


# Where the network is as sure as this, which is nearly everywhere, the scan is seen instead.
_CERTAIN = 0.95


def add_map(volume, image, kind, parameters, content=None, largest=1.0, title=""):
    """Add a scalar volume node on the grid of a volume node, to be shown over it: 0 is transparent.

    Args:
        volume: the volume node that was segmented.
        image: ``SimpleITK.Image`` of values from 0 to ``largest``, voxel by voxel that of ``volume``.
        kind: what it is, such as ``CONFIDENCE``; part of the node's name.
        parameters: what made it.
        content: as for :func:`add_segmentation`.
        largest: the value of the colour table's end, of counts.
        title: as for :func:`add_segmentation`.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    with all_or_nothing(volume) as scene:
        refuse_changed(volume, image, content)
        name = scene.GenerateUniqueName(f"{volume.GetName()} {kind} ({title or parameters.title})")
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        data, voxels = vtk.vtkImageData(), sitk.GetArrayViewFromImage(image)
        set_voxels(data, voxels, volume.GetImageData().GetExtent()[::2])
        node.SetIJKToRASMatrix(ijk_to_ras(volume))
        node.CreateDefaultDisplayNodes()
        display, counts = node.GetDisplayNode(), np.issubdtype(voxels.dtype, np.integer)
        display.SetAndObserveColorNodeID(slice_views.sequential_colors(scene))
        display.AutoWindowLevelOff()
        # Always from 0 on, so that maps of different scans and blocks can be compared.
        display.SetWindowLevelMinMax(0, largest)
        # Of integers, Slicer cuts the decimals of a threshold off.
        display.SetThreshold(1 if counts else _LEAST_SHOWN, _CERTAIN if kind == CONFIDENCE else max(largest, 1))
        display.ApplyThresholdOn()
        display.SetInterpolate(not counts)
        # Last, or Slicer would take a second to look for a window of its own.
        node.SetAndObserveImageData(data)
        record_origin(node, volume, kind, parameters, content)
        attach_to_volume(volume, node)
        slice_views.add_legend(node, _legend_title(kind), *((largest + 1, 0) if counts else (6, 1)))
    return node


def _legend_title(kind):
    """What the colours of a map mean, in a few words and short lines."""
    if kind.startswith(SPATIAL):
        title = _("Excitation,\n{block}").format(block=kind[len(SPATIAL) :].strip())
    else:
        sure = _("Confidence\n(clear: > {sure})").format(sure=_CERTAIN)
        title = {CONFIDENCE: sure, DISAGREEMENT: _("Variants that\ndisagree")}.get(kind, kind)
    # An empty line parts it from the topmost number.
    return title + "\n"


def find_maps(volume, parameters, block, confidence):
    """Return the nodes of the confidence and of a block's excitation as they were made before, in the order of
    :func:`add_maps`, or ``()`` if any is missing."""
    found = {
        kind: find_result(volume, kind, parameters)
        for kind in (CONFIDENCE, f"{SPATIAL} {block}", f"{CHANNELS} {block}")
    }
    confident, spatial, channels = found.values()
    spatially, by_channels = Variant(parameters.se).spatial, Variant(parameters.se).by_channel
    if parameters.model:
        # Whatever blocks it has: its excitation was added whole.
        spatially, by_channels = spatial is not None, spatial is None or channels is not None
    wanted = [confident] if confidence else []
    if block:
        wanted += [spatial] if spatially else []
        wanted += [channels] if by_channels else []
    return () if None in wanted else tuple(wanted)


def add_maps(volume, segmentation, content=None, pause=None):
    """Return nodes for the maps that a :class:`~.result.Segmentation` has, adding those that are missing.

    Args:
        pause: as for :func:`~.provenance.in_steps`; the other arguments are those of :func:`add_compared`.

    Returns:
        volume nodes of confidence and spatial excitation, and the chart node of channel excitation, if there are any.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    parameters, excitation, nodes = segmentation.parameters, segmentation.excitation, []
    images = {CONFIDENCE: segmentation.confidence}
    if excitation is not None:
        images[f"{SPATIAL} {excitation.block}"] = excitation.spatial
    with in_steps(volume, pause) as step:
        for kind, image in images.items():
            if image is not None:
                node = find_result(volume, kind, parameters)
                nodes.append(node or step(add_map, volume, image, kind, parameters, content))
        if excitation is not None and excitation.mean:
            node = find_result(volume, f"{CHANNELS} {excitation.block}", parameters)
            nodes.append(node or step(add_channels, volume, excitation, parameters, content))
    return tuple(nodes)


def show_maps(volume, nodes, outlined=True):
    """Show the last of the volume nodes over the volume; return the chart node, which needs a view of its own.

    Args:
        outlined: whether the structures are outlined meanwhile; they are hidden if not.
    """
    for node in nodes:
        if node.IsA("vtkMRMLScalarVolumeNode"):
            slice_views.show_over_volume(volume, node)
            slice_views.outline_structures(node, outlined)
    return next((node for node in nodes if node.IsA("vtkMRMLPlotChartNode")), None)


def map_shown(volume):
    """Return the map that lies over a volume in the slice views of the scene of a volume node, or ``None``."""
    return None if volume is None or volume.GetScene() is None else slice_views.map_shown(volume.GetScene())


def hide_maps(volume):
    """Take maps off the slice views of the scene of a volume node; structures are shown as before."""
    if volume is not None and volume.GetScene() is not None:
        slice_views.restore_foreground(volume.GetScene())
        slice_views.restore_structures(volume.GetScene())


def outline(volume, outlined):
    """Outline the structures beneath the map that is shown, if there is one, or hide them."""
    node = map_shown(volume)
    if node is not None:
        slice_views.outline_structures(node, outlined)
