"""What one run is to do: one or more choices for the same volume, and what to tell about them besides the labels."""

import json
from dataclasses import asdict, dataclass, field

from ..errors import SEBrainSegError
from .parameters import Parameters, alternatives

DEPTH = 4  # encoders and decoders of the bundled networks


BLOCKS = (
    *(f"encoder {number}" for number in range(1, DEPTH + 1)),
    *(f"decoder {number}" for number in range(1, DEPTH + 1)),
)


def excitation_blocks(parameters):
    """Return the names of the SE blocks of a choice, in the order of the data; none for a network without.

    The bundled networks have them after each encoder and decoder; a user-trained one, which is not opened for it, has
    them at the same places if it has any.
    """
    return () if parameters.se == "none" and not parameters.model else BLOCKS


@dataclass
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

    choices: tuple[Parameters, ...] = field(default_factory=lambda: (Parameters(),))
    confidence: bool = False
    excitation: str = ""
    accept_unlikely: bool = False
    compared: tuple[Parameters, ...] = ()

    def problem(self):
        """Return one sentence that says what is wrong, or ``""`` if all is well."""
        if not self.choices and not self.compared:
            return "Nothing is chosen to segment with; choose a network."
        for parameters in self.choices:
            if parameters.problem():
                return parameters.problem()
            blocks = excitation_blocks(parameters)
            if self.excitation and self.excitation not in blocks:
                if not blocks:
                    return f"{parameters.title} has no squeeze & excitation blocks; choose cSE, sSE or scSE."
                return f"There is no block '{self.excitation}' with an excitation: choose {alternatives(blocks)}."
        return ""

    def checked(self):
        """Return this job.

        Raises:
            SEBrainSegError: see :meth:`problem`.
        """
        problem = self.problem()
        if problem:
            raise SEBrainSegError(problem)
        return self

    def in_order(self, found, known):
        """Return the segmentations to compare, of ``found`` for the choices and ``known`` from before."""
        known = iter(known)
        return tuple(found[self.choices.index(each)] if each in self.choices else next(known) for each in self.compared)

    def to_json(self):
        """Return the job as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text):
        """Return the job that :meth:`to_json` wrote."""
        fields = json.loads(text)
        for name in ("choices", "compared"):
            fields[name] = tuple(Parameters(**each) for each in fields[name])
        return cls(**fields)
