"""The paper's comparison on labelled scans: each network without SE blocks, with cSE, sSE and scSE.

    python Testing/Benchmarks/comparison.py FOLDER [FOLDER ...] [--protocol freesurfer|manual] [--seeds DIR] [-o DIR]

A FOLDER holds pairs NAME_t1.nii.gz and NAME_structures.nii.gz (FreeSurfer ids; 255 is left out of the scores). Prints
the tables and leaves them in DIR (comparison.md), with a plot (comparison.png) and every single value (values.csv).
What values.csv holds already is not computed again unless the model file or the scan has changed; delete it after a
change of the code. With --seeds, networks that were trained like the bundled ones but for their seed (NAME-seedN.pt in
DIR, as the queue makes them of recipes/noise.json) count as much as these. Needs the extra "benchmark".
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from scores import Values, find_scans, labels_found, mean, model_checksum, score, spread, table
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.parameters import Architecture, Parameters, Protocol, Variant, View, values
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.inference.geometry import check
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import parameters
from trained import scores_of

try:
    from matplotlib.figure import Figure
    from scipy.stats import wilcoxon
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing; install it with: pip install '.[benchmark]'")

SIDE = 256  # pixels of the slice that the networks are timed on
ROUNDS = 5

EXPLANATION = """\
Scans: {names} ({scans}); {views} slices, {protocol} protocol.

- Dice: mean ± standard deviation over the scans of each scan's mean over the {structures} structures. A structure that
  only the labels or only the network has counts as 0; one that neither has does not count.
- HD95: the 95th-percentile Hausdorff distance, the larger of the two directions' 95th percentiles of the distances
  between surface voxels, averaged as Dice. A structure that only the labels or only the network has is not counted here
  but as missed.
- Voxels that the labels leave open (255) count in neither.
- Time: one forward pass of a slice of {side} x {side} pixels, by the clock and summed over the CPU's cores ({threads}
  threads); the median of {rounds} rounds in which the networks take turns.
- Seeds: how many networks were trained alike but for their seed. All measures are means over them; ± seeds is the
  standard deviation of their mean Dice. Networks whose difference is within it do not differ.
- Difference: of mean Dice to the same network without SE blocks. p: two-sided Wilcoxon signed-rank test of that
  difference, once over the scans (pairs of each scan's mean over the structures) and once over the structures (pairs of
  each structure's mean over the scans). n scans cannot bring p below 2 / 2^n. The structures of the same scans are not
  independent of each other, so the evidence is weaker than their p says.
"""


class Cost(NamedTuple):
    """What a network costs: trainable parameters, seconds a slice by the clock and by the CPU."""

    parameters: int
    seconds: float
    cpu_seconds: float


def load(networks):
    """Return ``{network: (its torch modules, checksum of its files)}`` of those that are bundled; name the others.

    Args:
        networks: list of :class:`~SEBrainSegLib.choices.parameters.Parameters`.
    """
    loaded = {}
    for network in networks:
        try:
            modules = [
                bundled.load(network.architecture, network.se, view, network.protocol).network for view in network.views
            ]
        except SEBrainSegError as error:
            print(f"{network.name} is left out: {error}", file=sys.stderr)
            continue
        loaded[network.name] = modules, model_checksum(network)
    return loaded


def costs(modules):
    """Return the :class:`Cost` of every network: of its modules, one a view, together.

    The networks take turns, so that whatever else the computer does slows all of them.
    """
    pixels = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    spent = {name: [] for name in modules}
    for of_views in modules.values():
        for module in of_views:
            # As at inference.
            module.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for turn in range(1 + ROUNDS):
            for name, of_views in modules.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for module in of_views:
                    module(pixels)
                # The first turn warms up.
                if turn:
                    spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Cost(sum(parameters(module) for module in of_views), *np.median(spent[name], axis=0))
        for name, of_views in modules.items()
    }


def score_scan(scan, networks, checksums, kept):
    """Return ``{network: scores}`` of a scan, from the file of values where they are kept.

    Args:
        networks: list of :class:`~SEBrainSegLib.choices.parameters.Parameters`.
        checksums: of every network's files.
        kept: the :class:`~scores.Values`.
    """
    found, image, scan_checksum = {}, None, scan.checksum()
    for network in networks:
        key = network.name, network.protocol, scan.name, (checksums[network.name], scan_checksum)
        found[network.name] = kept.get(*key)
        if found[network.name] is not None:
            continue
        if image is None:
            image, truth = scan.read()
            check(image)
        labels = labels_found(
            image,
            f"{scan.name}, {network.name}",
            architecture=network.architecture,
            se=network.se,
            view=network.view,
            protocol=network.protocol,
        )
        of_network = score(labels, truth, image.GetSpacing()[::-1])
        found[network.name] = kept.add(*key, of_network)
        print(f"{scan.name}, {network.name}: Dice {mean(of_network[:, 0]):.3f}", file=sys.stderr, flush=True)
    return found


def score_seeds(scan, network, folder, kept):
    """Return the scores of a scan by the networks of other seeds, a list.

    Args:
        network: :class:`~SEBrainSegLib.choices.parameters.Parameters`.
        folder: holds their model files; ``None``: there are none.
        kept: the :class:`~scores.Values`.
    """
    name = f"{network.architecture}-{network.se}-{network.view}"
    paths = sorted(folder.glob(f"{name}-seed*.pt")) if folder else []
    return [scores_of(path, [scan], network.protocol, kept)[0] for path in paths]


def paired_test(dice, reference):
    """Return p of the two-sided Wilcoxon signed-rank test over pairs, and their number; both must be numbers."""
    differences = dice - reference
    differences = differences[~np.isnan(differences)]
    # The test drops differences of 0 and has nothing to say without any other.
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return p, differences.size


def network_rows(networks, found, cost):
    """Return the rows of the paper's table, after its header.

    Args:
        networks: list of :class:`~SEBrainSegLib.choices.parameters.Parameters`.
        found: ``{network: scores}``, the scores of shape ``(seeds, scans, structures, 2)``.
        cost: ``{network: Cost}``.
    """
    rows = [
        ["network", "SE", "Dice", "HD95 (mm)", "missed", "parameters", "increase", "s / slice", "CPU s / slice"]
        + ["seeds", "± seeds", "difference", "p (scans)", "n", "p (structures)", "n"]
    ]
    for network in networks:
        of_seeds = found[network.name]
        dice, distance = np.moveaxis(over_seeds(of_seeds), 2, 0)
        plain = replace(network, se="none").name
        increase, against = "–", ["–"] * 5
        if plain in found and plain != network.name:
            increase = f"{100 * (cost[network.name].parameters / cost[plain].parameters - 1):+.2f} %"
            against = compared(dice, over_seeds(found[plain])[..., 0])
        missed = np.sum(~np.isnan(of_seeds[..., 0]) & np.isnan(of_seeds[..., 1])) / len(of_seeds)
        of_each = [scan_means(each[..., 0]).mean() for each in of_seeds]
        rows.append(
            [
                Architecture(network.architecture).label(),
                Variant(network.se).label(),
                spread(scan_means(dice), 3),
                spread(scan_means(distance), 2),
                f"{missed:.3g}",
                f"{cost[network.name].parameters:,}",
                increase,
                f"{cost[network.name].seconds:.3f}",
                f"{cost[network.name].cpu_seconds:.3f}",
                str(len(of_seeds)),
                f"{np.std(of_each, ddof=1):.4f}" if len(of_each) > 1 else "–",
                *against,
            ]
        )
    return rows


def compared(dice, reference):
    """Return the cells that tell how Dice ``(scans, structures)`` differ from others: difference, p and n twice."""
    # A structure that one of both has no number for is compared in neither.
    unknown = np.isnan(dice) | np.isnan(reference)
    pairs = [np.where(unknown, np.nan, each) for each in (dice, reference)]
    cells = [f"{np.diff([scan_means(each).mean() for each in (reference, dice)])[0]:+.4f}"]
    for means in ([scan_means(each) for each in pairs], [scan_means(each.T) for each in pairs]):
        p, count = paired_test(*means)
        cells += [f"{p:.2g}", str(count)]
    return cells


def over_seeds(values):
    """Mean of values ``(seeds, scans, structures, 2)`` over the seeds that have a number there."""
    counts = np.sum(~np.isnan(values), axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def scan_means(values):
    """Mean over the structures of every scan, of values of shape ``(scans, structures)``."""
    return np.array([mean(of_scan) for of_scan in values])


def structure_rows(networks, found):
    """Return the rows of mean Dice over the scans, structures x networks, after their header."""
    header = [f"{Architecture(network.architecture).label()} {Variant(network.se).label()}" for network in networks]
    rows = [["structure", *header]]
    for index, structure in enumerate(structures()):
        means = [mean(over_seeds(found[network.name])[:, index, 0]) for network in networks]
        rows.append([structure.name, *("–" if np.isnan(value) else f"{value:.3f}" for value in means)])
    return rows


def plot(networks, found, path):
    """Draw the Dice of every structure without SE blocks against scSE, one panel a network; false if none has both."""
    by_architecture = {}
    for network in networks:
        by_architecture.setdefault(network.architecture, {})[network.se] = over_seeds(found[network.name])[..., 0]
    panels = [(name, by_se) for name, by_se in by_architecture.items() if {"none", "scse"} <= set(by_se)]
    if not panels:
        return False
    figure = Figure(figsize=(10, 8), layout="constrained")
    rows = np.arange(len(structures()))
    looks = {
        "none": {"color": "#767676", "marker": "o", "markerfacecolor": "white", "label": "without SE"},
        "scse": {"color": "#0b6fb8", "marker": "D", "label": "scSE"},
    }
    for axes, (name, by_se) in zip(figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0], panels):
        for (se, look), shift in zip(looks.items(), (-0.17, 0.17)):
            means = np.array([mean(of_structure) for of_structure in by_se[se].T])
            deviations = np.array([np.std(kept, ddof=1) if kept.size > 1 else 0 for kept in map(numbers, by_se[se].T)])
            axes.errorbar(means, rows + shift, xerr=deviations, linestyle="", markersize=4, linewidth=1, **look)
        axes.set_title(Architecture(name).label(), fontsize=11)
        axes.set_xlabel("Dice")
        axes.set_yticks(rows, [structure.name for structure in structures()], fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    axes.set_xlim(right=1.0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    # Twice the 1000 pixels that it is shown at.
    figure.savefig(path, dpi=200)
    return True


def numbers(values):
    """Those of the values that are numbers."""
    return values[~np.isnan(values)]


def compare(chosen):
    """Score, print and write.

    Raises:
        SEBrainSegError: bad input, or nothing to compare.
    """
    scans = find_scans(chosen.folders, chosen.names)
    check_writable(chosen.output)
    kept = Values(chosen.output / "values.csv")
    networks = [
        Parameters(architecture, se, chosen.view, protocol=chosen.protocol)
        for architecture in chosen.architectures
        for se in chosen.se
    ]
    loaded = load(networks)
    networks = [network for network in networks if network.name in loaded]
    if not networks:
        raise SEBrainSegError("None of these networks is bundled; choose others.")
    cost = costs({name: modules for name, (modules, _) in loaded.items()})
    checksums = {name: checksum for name, (_, checksum) in loaded.items()}
    # Each is loaded again for a scan; twelve and one scan need not share the memory.
    del loaded
    by_scan = []
    for scan in scans:
        bundled_scores = score_scan(scan, networks, checksums, kept)
        by_scan.append(
            {each.name: [bundled_scores[each.name], *score_seeds(scan, each, chosen.seeds, kept)] for each in networks}
        )
    found = {network.name: np.stack([of_scan[network.name] for of_scan in by_scan], axis=1) for network in networks}
    explanation = EXPLANATION.format(
        scans=len(scans),
        names=", ".join(scan.name for scan in scans),
        views=" and ".join(networks[0].views),
        protocol=Protocol(chosen.protocol).label(),
        structures=len(structures()),
        side=SIDE,
        threads=torch.get_num_threads(),
        rounds=ROUNDS,
    )
    by_network, by_structure = network_rows(networks, found, cost), structure_rows(networks, found)
    text = [explanation, table(by_network[0], by_network[1:]), "\nMean Dice over the scans:\n"]
    text.append(table(by_structure[0], by_structure[1:]))
    picture = chosen.output / "comparison.png"
    if plot(networks, found, picture):
        text.append(f"\n![Dice of every structure without SE blocks and with scSE]({picture.name})")
        text.append(
            "\nDice of every structure without SE blocks and with scSE: mean and standard deviation over the scans."
        )
    text = "\n".join(text) + "\n"
    (chosen.output / "comparison.md").write_text(text, encoding="utf-8")
    print(text)


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--architectures", nargs="+", default=values(Architecture), choices=values(Architecture))
    parser.add_argument("--se", nargs="+", default=values(Variant), choices=values(Variant))
    parser.add_argument("--view", default="coronal", choices=values(View))
    parser.add_argument("--protocol", default="freesurfer", choices=values(Protocol), help="that of the labels")
    parser.add_argument("--names", nargs="+", help="only these scans")
    parser.add_argument("--seeds", type=Path, metavar="DIR", help="folder of NAME-seedN.pt, networks of other seeds")
    parser.add_argument("-o", "--output", type=Path, default=Path("comparison"), metavar="DIR")
    try:
        compare(parser.parse_args(argv))
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
