"""Results to Slicer's nodes and back; the only room, with the Qt process, that needs Slicer."""

from .comparison_nodes import add_compared, comparison_of
from .display import (
    add_surface,
    groups_shown,
    has_surfaces,
    labelmaps_of,
    make_surfaces,
    show_group,
    show_only,
    show_surfaces,
)
from .map_nodes import add_maps, find_maps, hide_maps, map_shown, outline, show_maps
from .provenance import content_of, find_result, is_there, remove
from .segmentation_nodes import add_segmentation, remember_confidences, segmentation_of
from .sequence_nodes import add_segmentations, items
from .table_nodes import add_volumes
from .volume_nodes import doubt, image_of, problem

__all__ = [
    "add_compared",
    "add_maps",
    "add_segmentation",
    "add_segmentations",
    "add_surface",
    "add_volumes",
    "comparison_of",
    "doubt",
    "find_result",
    "find_maps",
    "groups_shown",
    "has_surfaces",
    "hide_maps",
    "image_of",
    "is_there",
    "items",
    "labelmaps_of",
    "make_surfaces",
    "map_shown",
    "outline",
    "problem",
    "remember_confidences",
    "remove",
    "segmentation_of",
    "show_group",
    "show_maps",
    "show_only",
    "show_surfaces",
    "content_of",
]
