"""Where a node stands: its parent transform and its place in the subject hierarchy."""

import slicer


def follow(volume, node):
    """Give ``node`` the parent transform of ``volume`` and a place beside it in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    stand_beside(volume, node)


def stand_under(parent, node):
    """Make ``node`` a child of another in the subject hierarchy, in which it is deleted with that."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(parent.GetScene())
    if hierarchy is None:
        return
    of_parent, of_node = hierarchy.GetItemByDataNode(parent), hierarchy.GetItemByDataNode(node)
    if of_parent and of_node:
        hierarchy.SetItemParent(of_node, of_parent)


def stand_beside(volume, node):
    """Give ``node`` the subject-hierarchy parent of ``volume``, where there is a hierarchy of items."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is None:
        return
    of_volume, of_node = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if of_volume and of_node:
        hierarchy.SetItemParent(of_node, hierarchy.GetItemParent(of_volume))
