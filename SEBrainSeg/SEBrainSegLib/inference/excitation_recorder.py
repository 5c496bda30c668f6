"""Recalibration maps: what an SE block did, seen in the forward passes that make a segmentation."""

from collections.abc import Sequence
from typing import Callable, Optional, cast

import numpy as np
import torch

from ..errors import SEBrainSegError
from ..networks.architectures import Block, EncoderDecoder
from ..networks.squeeze_excitation import ChannelSE, SpatialSE


def block_named(network: EncoderDecoder, name: str) -> torch.nn.Module:
    """Return the SE block that follows ``"encoder 1"``, ``"decoder 4"`` or ``"bottleneck"`` of a network.

    Raises:
        SEBrainSegError: there is none; the message names those that there are.
    """
    blocks: dict[str, Optional[torch.nn.Module]] = {}
    blocks.update({f"encoder {number}": cast(Block, each).se for number, each in enumerate(network.encoders, start=1)})
    blocks["bottleneck"] = network.bottleneck.se
    blocks.update({f"decoder {number}": cast(Block, each).se for number, each in enumerate(network.decoders, start=1)})
    block = blocks.get(name)
    if block is None:
        there = ", ".join(each for each, se in blocks.items() if se is not None)
        advice = f"choose one of {there}" if there else "it has none"
        raise SEBrainSegError(f"This network has no squeeze & excitation block '{name}': {advice}.")
    return block


class Recorder:
    """Records the excitation of one SE block while a network classifies the slices of a volume.

    Use it as a context; call :meth:`record` after every batch.

    Args:
        network: an :class:`~.architectures.EncoderDecoder`.
        name: its block, see :func:`block_named`.
        shape: slices, rows and columns of the volume.

    Attributes:
        spatial: ``(slices, rows, columns)`` in [0, 1], or ``None`` of a block without sSE. A coarser map is repeated to
            the slices' pixels, not interpolated.
        channels: ``(slices, C)`` in [0, 1], or ``None`` of a block without cSE.
    """

    def __init__(self, network: EncoderDecoder, name: str, shape: Sequence[int]) -> None:
        self.spatial: Optional[np.ndarray] = None
        self.channels: Optional[np.ndarray] = None
        self._block, self._shape = block_named(network, name), tuple(shape)
        self._gates: dict[type, torch.Tensor] = {}  # of the last forward pass

    def __enter__(self) -> "Recorder":
        self._handles = []
        for module in self._block.modules():
            if isinstance(module, (ChannelSE, SpatialSE)):
                self._handles.append(module.gate.register_forward_hook(self._hook(type(module))))
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, kind: type) -> Callable:
        def keep(module, inputs, gates):
            self._gates[kind] = gates

        return keep

    def record(self, first: int, size: Sequence[int]) -> None:
        """Record the gates of the last forward pass.

        Args:
            first: number of its first slice.
            size: rows and columns of the slices that the network was given, with their padding.
        """
        if ChannelSE in self._gates:
            gates = self._gates[ChannelSE].float().cpu().numpy()
            if self.channels is None:
                self.channels = np.zeros((self._shape[0], gates.shape[1]), np.float32)
            self.channels[first : first + len(gates)] = gates
        if SpatialSE in self._gates:
            gates = self._gates[SpatialSE][:, 0].float().cpu().numpy()
            if self.spatial is None:
                self.spatial = np.zeros(self._shape, np.float32)
            for axis in (1, 2):
                gates = gates.repeat(size[axis - 1] // gates.shape[axis], axis=axis)
            self.spatial[first : first + len(gates)] = gates[:, : self._shape[1], : self._shape[2]]
