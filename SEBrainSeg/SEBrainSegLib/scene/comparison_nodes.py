"""The nodes of a comparison: segmentations, table, disagreement and consensus."""

from typing import NamedTuple

from .display import show_only
from .map_nodes import add_map
from .provenance import (
    COMPARISON,
    CONSENSUS,
    DISAGREEMENT,
    SEGMENTATION,
    find_result,
    in_steps,
    record_origin,
    refuse_changed,
    results_of,
)
from .segmentation_nodes import add_segmentation
from .table_nodes import add_table


class Compared(NamedTuple):
    """The nodes of a comparison: segmentations in the order of the variants, table, disagreement, consensus or None."""

    segmentations: tuple
    table: object
    disagreement: object
    consensus: object


def add_compared(volume, differences, content=None, consensus=False, pause=None):
    """Add the nodes of a comparison of segmentations of one volume node; those that are there already are not doubled.

    Of the segmentations, the views show the consensus or the last.

    Args:
        volume: the volume node that was segmented.
        differences: the :class:`~.comparison.Differences` of its segmentations.
        content: as for :func:`~.segmentation_nodes.add_segmentation`.
        consensus: whether to add theirs, too.
        pause: as for :func:`~.provenance.in_steps`.

    Returns:
        :class:`Compared`.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    parameters, title = differences.segmentations[0].parameters, ", ".join(differences.titles)

    def add_comparison_table():
        refuse_changed(volume, differences.commonest, content)
        table = add_table(volume, f"{volume.GetName()} {COMPARISON} ({title})", _columns(differences))
        record_origin(table, volume, COMPARISON, parameters, content)
        return table

    with in_steps(volume, pause) as step:
        table = step(add_comparison_table)
        nodes = tuple(
            find_result(volume, SEGMENTATION, each.parameters)
            or step(add_segmentation, volume, each, content, visible=False)
            for each in differences.segmentations
        )
        count = len(differences.segmentations)
        image = step(add_map, volume, differences.disagreement, DISAGREEMENT, parameters, content, count - 1, title)
        agreed = None
        if consensus:
            name = f"consensus of {title}"
            agreed = step(add_segmentation, volume, differences.consensus(), content, CONSENSUS, name, visible=False)
        show_only(agreed or nodes[-1])
    return Compared(nodes, table, image, agreed)


def _columns(differences):
    """The table of :class:`~.comparison.Differences`: a row per structure, rounded to what can be read."""
    titles = differences.titles
    columns = {"Structure": [structure.name for structure in differences.structures]}
    for index, title in enumerate(titles):
        columns[f"{title} (ml)"] = [round(float(row[index]), 3) for row in differences.volumes]
    for index, (one, other) in enumerate(differences.pairs):
        # Not a number where neither found the structure.
        values = [round(float(row[index]), 3) for row in differences.dice]
        columns[f"Dice {titles[one]} / {titles[other]}"] = ["" if value != value else value for value in values]
    columns["Largest difference (ml)"] = [round(float(value), 3) for value in differences.largest]
    return columns


def comparison_of(volume):
    """Return the table node of the latest comparison of a volume node, or ``None``."""
    return next(iter(results_of(volume, (COMPARISON,))), None) if volume is not None else None
