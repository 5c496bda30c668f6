"""Where a node stands: its parent transform and its place in the subject hierarchy."""

from __future__ import annotations

import slicer


def attach_to_volume(volume: slicer.vtkMRMLVolumeNode, node: slicer.vtkMRMLDisplayableNode) -> None:
    """Give ``node`` the parent transform of ``volume`` and a place beside it in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    place_beside(volume, node)


def make_child_of(parent: slicer.vtkMRMLNode, node: slicer.vtkMRMLNode) -> None:
    """Make ``node`` a child of another in the subject hierarchy, in which it is deleted with that."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(parent.GetScene())
    if hierarchy is None:
        return
    of_parent, of_node = hierarchy.GetItemByDataNode(parent), hierarchy.GetItemByDataNode(node)
    if of_parent and of_node:
        hierarchy.SetItemParent(of_node, of_parent)


def place_beside(volume: slicer.vtkMRMLNode, node: slicer.vtkMRMLNode) -> None:
    """Give ``node`` the subject-hierarchy parent of ``volume``, where there is a hierarchy of items."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is None:
        return
    of_volume, of_node = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if of_volume and of_node:
        hierarchy.SetItemParent(of_node, hierarchy.GetItemParent(of_volume))
