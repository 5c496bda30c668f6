"""What one run is to do: one or more choices for the same volume, and what to tell about them besides the labels."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SEBrainSegError
from ..translation import tr as _
from .parameters import Parameters
from .vocabulary import Variant, alternatives

DEPTH = 4  # encoders and decoders of the bundled networks


BLOCKS = (
    *(f"encoder {number}" for number in range(1, DEPTH + 1)),
    *(f"decoder {number}" for number in range(1, DEPTH + 1)),
)


def excitation_blocks(parameters: Parameters) -> tuple[str, ...]:
    """Return the names of the SE blocks of a choice, in the order of the data; none for a network without.

    The bundled networks have them after each encoder and decoder; a user-trained one, which is not opened for it, has
    them at the same places if it has any.
    """
    return () if parameters.se == Variant.NONE.value and not parameters.model else BLOCKS


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        choices: what to segment the volume with, one after the other.
        confidence: whether to tell the probability of the network's choice in every voxel.
        excitation: the SE block whose excitation to tell, one of :func:`excitation_blocks`, or ``""``. With all three
            views it is the coronal network's.
        accept_unlikely: whether a result that is unlikely to be right is given all the same, with a word on why.
        compared: choices whose segmentations to compare, in this order; those that are not among ``choices`` were made
            before and are handed over with the job.
    """

    choices: tuple[Parameters, ...] = (Parameters(),)
    confidence: bool = False
    excitation: str = ""
    accept_unlikely: bool = False
    compared: tuple[Parameters, ...] = ()

    def problem(self) -> str:
        """Return one sentence that says what is wrong, or ``""`` if all is well."""
        if not self.choices and not self.compared:
            return _("Nothing is chosen to segment with; choose a network.")
        problems = (parameters.problem() or self._problem_of_excitation(parameters) for parameters in self.choices)
        return next(filter(None, problems), "")

    def _problem_of_excitation(self, parameters: Parameters) -> str:
        blocks = excitation_blocks(parameters)
        if not self.excitation or self.excitation in blocks:
            return ""
        if not blocks:
            others = alternatives(each.label() for each in Variant if each is not Variant.NONE)
            return _("{network} has no squeeze & excitation blocks; choose {variants}.").format(
                network=parameters.title, variants=others
            )
        return _("There is no block '{name}' with an excitation: choose {blocks}.").format(
            name=self.excitation, blocks=alternatives(blocks)
        )

    def checked(self) -> "Job":
        """Return this job.

        Raises:
            SEBrainSegError: see :meth:`problem`.
        """
        problem = self.problem()
        if problem:
            raise SEBrainSegError(problem)
        return self

    def in_order(self, found: Sequence[Any], known: Iterable[Any]) -> tuple[Any, ...]:
        """Return the segmentations to compare, in the order of ``compared``.

        Args:
            found: a segmentation for each of ``choices``.
            known: the others, which were made before, in the order of ``compared``.
        """
        known = iter(known)
        return tuple(found[self.choices.index(each)] if each in self.choices else next(known) for each in self.compared)

    def to_json(self) -> str:
        """Return the job as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Return the job that :meth:`to_json` wrote."""
        fields = json.loads(text)
        for name in ("choices", "compared"):
            fields[name] = tuple(Parameters(**each) for each in fields[name])
        return cls(**fields)
