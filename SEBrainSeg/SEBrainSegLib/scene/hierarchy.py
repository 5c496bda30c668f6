"""Where a node stands: its parent transform and its place in the subject hierarchy."""

from __future__ import annotations

from collections.abc import Callable

import slicer


def attach_to_volume(volume: slicer.vtkMRMLVolumeNode, node: slicer.vtkMRMLDisplayableNode) -> None:
    """Give ``node`` the parent transform of ``volume`` and a place beside it in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    place_beside(volume, node)


def make_child_of(parent: slicer.vtkMRMLNode, node: slicer.vtkMRMLNode) -> None:
    """Make ``node`` a child of another in the subject hierarchy, in which it is deleted with that."""
    _set_parent(node, parent, lambda hierarchy, item: item)


def place_beside(volume: slicer.vtkMRMLNode, node: slicer.vtkMRMLNode) -> None:
    """Give ``node`` the subject-hierarchy parent of ``volume``, where there is a hierarchy of items."""
    _set_parent(node, volume, lambda hierarchy, item: hierarchy.GetItemParent(item))


def _set_parent(
    node: slicer.vtkMRMLNode,
    other: slicer.vtkMRMLNode,
    parent_of: Callable[[slicer.vtkMRMLSubjectHierarchyNode, int], int],
) -> None:
    """Give ``node`` the item as parent that is told by the hierarchy and the item of another node, if there are any."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(other.GetScene())
    if hierarchy is None:
        return
    of_other, of_node = hierarchy.GetItemByDataNode(other), hierarchy.GetItemByDataNode(node)
    if of_other and of_node:
        hierarchy.SetItemParent(of_node, parent_of(hierarchy, of_other))
