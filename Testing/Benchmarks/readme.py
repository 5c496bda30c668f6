"""Writes the README's table of what to expect from ``Resources/Models/facts.csv``, which ``facts.py`` fills.

python Testing/Benchmarks/readme.py
"""

import csv
import re
import sys
from pathlib import Path

from SEBrainSegLib.choices.parameters import Architecture, Parameters, Variant, View
from SEBrainSegLib.resources import resource

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(<!-- facts: [^\n]*-->\n).*?(<!-- end of facts -->)", re.DOTALL)
# Each architecture as the module offers it at first, and the best there is.
ONE_VIEW = [Parameters(architecture=each.value, se=Variant.SCSE.value) for each in Architecture]
ALL_VIEWS = Parameters(view=View.ALL.value)


def table(facts):
    """Return the lines of the table.

    Args:
        facts: the rows of ``facts.csv`` by name of network.
    """
    rows = [("network", "Dice, FreeSurfer's labels", "Dice, manual labels", "processor time", "parameters")]
    rows.append(("---",) * len(rows[0]))
    for choice in (ONE_VIEW[0], ALL_VIEWS, *ONE_VIEW[1:]):
        row = facts[choice.name]
        name = f"{choice.title} (default)" if choice == Parameters() else choice.title
        scores = row["dice_freesurfer"], row["dice_manual"]
        rows.append((name, *scores, f"{row['seconds']} s", f"{int(row['parameters']):,}"))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    ratio = float(facts[ALL_VIEWS.name]["seconds"]) / float(facts[ONE_VIEW[0].name]["seconds"])
    return [*lines, "", f"Averaging all three views takes {ratio:.1f} times as long as one view."]


def with_facts(text, facts):
    """Return the README's text with the table of these facts between its markers."""
    lines = "\n".join(table(facts))
    changed, count = BLOCK.subn(lambda found: f"{found[1]}{lines}\n{found[2]}", text)
    if count != 1:
        raise SystemExit(f"{README} has {count} places for the facts, not one.")
    return changed


def read_facts():
    """Return the rows of ``facts.csv`` by name of network."""
    with open(resource("Models/facts.csv"), newline="", encoding="utf-8") as file:
        return {row["network"]: row for row in csv.DictReader(file)}


def main():
    """Rewrite the README; returns the exit status (0 done)."""
    README.write_text(with_facts(README.read_text(encoding="utf-8"), read_facts()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
