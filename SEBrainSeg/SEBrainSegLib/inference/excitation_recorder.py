"""Recalibration maps: what an SE block did, seen in the forward passes that make a segmentation."""

import numpy as np

from ..errors import SEBrainSegError
from ..networks.squeeze_excitation import ChannelSE, SpatialSE


def block_named(network, name):
    """Return the SE block that follows ``"encoder 1"``, ``"decoder 4"`` or ``"bottleneck"`` of a network.

    Raises:
        SEBrainSegError: there is none; the message names those that there are.
    """
    blocks = {f"encoder {number}": each.se for number, each in enumerate(network.encoders, start=1)}
    blocks["bottleneck"] = network.bottleneck.se
    blocks.update({f"decoder {number}": each.se for number, each in enumerate(network.decoders, start=1)})
    if blocks.get(name) is None:
        there = ", ".join(each for each, block in blocks.items() if block is not None)
        advice = f"choose one of {there}" if there else "it has none"
        raise SEBrainSegError(f"This network has no squeeze & excitation block '{name}': {advice}.")
    return blocks[name]


class Recorder:
    """Records the excitation of one SE block while a network classifies the slices of a volume.

    Use it as a context; call :meth:`take` after every batch.

    Args:
        network: an :class:`~.architectures.EncoderDecoder`.
        name: its block, see :func:`block_named`.
        shape: slices, rows and columns of the volume.

    Attributes:
        spatial: ``(slices, rows, columns)`` in [0, 1], or ``None`` of a block without sSE. A coarser map is repeated to
            the slices' pixels, not interpolated.
        channels: ``(slices, C)`` in [0, 1], or ``None`` of a block without cSE.
    """

    def __init__(self, network, name, shape):
        self.block, self.shape = block_named(network, name), shape
        self.spatial = self.channels = None
        self.last = {}

    def __enter__(self):
        self.handles = []
        for module in self.block.modules():
            if isinstance(module, (ChannelSE, SpatialSE)):
                self.handles.append(module.gate.register_forward_hook(self.hook(type(module))))
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def hook(self, kind):
        def keep(module, inputs, gates):
            self.last[kind] = gates

        return keep

    def take(self, first, size):
        """Take what the last forward pass left.

        Args:
            first: number of its first slice.
            size: rows and columns of the slices that the network was given, with their padding.
        """
        if ChannelSE in self.last:
            gates = self.last[ChannelSE].float().cpu().numpy()
            if self.channels is None:
                self.channels = np.zeros((self.shape[0], gates.shape[1]), np.float32)
            self.channels[first : first + len(gates)] = gates
        if SpatialSE in self.last:
            gates = self.last[SpatialSE][:, 0].float().cpu().numpy()
            if self.spatial is None:
                self.spatial = np.zeros(self.shape, np.float32)
            for axis in (1, 2):
                gates = gates.repeat(size[axis - 1] // gates.shape[axis], axis=axis)
            self.spatial[first : first + len(gates)] = gates[:, : self.shape[1], : self.shape[2]]
