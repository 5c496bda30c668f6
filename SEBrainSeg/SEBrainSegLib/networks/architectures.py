"""Fully convolutional networks that the paper recalibrates: U-Net, SD-Net and DenseNet (section IV-B).

All three are one encoder-decoder: ``depth`` encoders, a bottleneck, ``depth`` decoders and a 1x1 classifier, of the
same width at every level. They differ in the layers of a block and in how a decoder's input is up-sampled.
"""

from collections.abc import Callable
from typing import Optional

import torch
from torch import nn
from torch.nn import functional

from ..choices.vocabulary import Aggregation, Architecture, Variant
from .squeeze_excitation import known, recalibration

PLACEMENTS = ("encoder", "decoder", "both", "all")


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Return convolution ("same" padding) - batch norm - ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class DenseLayers(nn.Module):
    """Batch norm - ReLU - convolution twice, each result joined to its input, then the same 1x1 to ``width``."""

    def __init__(self, in_channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.first = self._layer(in_channels, width, kernel)
        self.second = self._layer(in_channels + width, width, kernel)
        self.last = self._layer(in_channels + 2 * width, width, 1)

    @staticmethod
    def _layer(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
        """Return batch norm - ReLU - convolution ("same" padding)."""
        return nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat((x, self.first(x)), dim=1)
        x = torch.cat((x, self.second(x)), dim=1)
        return self.last(x)


class Block(nn.Module):
    """A network's layers, then the SE block if there is one."""

    def __init__(self, convolutions: nn.Module, se: Optional[nn.Module], out_channels: int) -> None:
        super().__init__()
        self.convolutions, self.se, self.out_channels = convolutions, se, out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolutions(x)
        return x if self.se is None else self.se(x)


class EncoderDecoder(nn.Module):
    """The encoder-decoder that the three networks share (section IV-B).

    Slices of at least ``2 ** depth`` pixels a side pass, of any size.

    Args:
        classes: number of classes, background included.
        width: channels of every level (the paper: 64).
        kernel: odd kernel size (the paper: 5).
        depth: number of encoders and of decoders (the paper: 4).
        se: a value of :class:`~.vocabulary.Variant`.
        reduction: the reduction ratio r of cSE.
        aggregation: how scSE joins its branches, a value of :class:`~.vocabulary.Aggregation`.
        placement: the blocks that an SE block follows: ``"encoder"``, ``"decoder"``, ``"both"`` (the paper) or
            ``"all"``, the bottleneck too.
        se_bias: whether SE layers carry biases.
        slices: odd number of neighbouring slices that enter together, as channels (the paper: 1); the middle one is
            labelled.

    Raises:
        ValueError: ``kernel`` or ``slices`` is even, or ``se``, ``aggregation`` or ``placement`` is unknown or does not
            fit.
    """

    # Each network has its own.
    layers: Callable[..., nn.Module]
    pool: Callable[..., tuple]
    upsample: Callable[..., torch.Tensor]

    def __init__(
        self,
        classes: int = 32,
        width: int = 32,
        kernel: int = 5,
        depth: int = 4,
        se: str = "none",
        reduction: int = 2,
        aggregation: str = "max",
        placement: str = "both",
        se_bias: bool = True,
        slices: int = 1,
    ) -> None:
        super().__init__()
        if slices % 2 == 0:
            raise ValueError(f"The number of slices must be odd for one to be in the middle, not {slices}.")
        self.slices = slices
        if kernel % 2 == 0:
            raise ValueError(f"The kernel size must be odd to keep the size of a slice, not {kernel}.")
        aggregation = known(Aggregation, aggregation, "aggregation").value
        if placement not in PLACEMENTS:
            raise ValueError(f"Unknown placement '{placement}': choose one of {', '.join(PLACEMENTS)}.")
        self.check(se, aggregation)

        def block(in_channels, placements):
            placed = se if placement in placements else "none"
            layers = self.layers(in_channels, width, kernel)
            return Block(layers, *recalibration(placed, width, reduction, aggregation, se_bias))

        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        skips, channels = [], slices
        for _ in range(depth):
            encoder = block(channels, ("encoder", "both", "all"))
            self.encoders.append(encoder)
            channels = encoder.out_channels
            skips.append(channels)
        self.bottleneck = block(channels, ("all",))
        channels = self.bottleneck.out_channels
        for skip in reversed(skips):
            decoder = block(channels + skip, ("decoder", "both", "all"))
            self.decoders.append(decoder)
            channels = decoder.out_channels
        self.classifier = nn.Conv2d(channels, classes, kernel_size=1)

    def check(self, se: str, aggregation: str) -> None:
        """Raise :class:`ValueError` if this network cannot hold such SE blocks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map slices ``(N, slices, H, W)`` to logits ``(N, classes, H, W)`` of the middle one."""
        skips = []
        for encoder in self.encoders:
            skip = encoder(x)
            x, indices = self.pool(skip)
            skips.append((skip, indices))
        x = self.bottleneck(x)
        for decoder, (skip, indices) in zip(self.decoders, reversed(skips)):
            x = decoder(torch.cat((skip, self.upsample(x, skip, indices)), dim=1))
        return self.classifier(x)


class UNet(EncoderDecoder):
    """U-Net: convolution - batch norm - ReLU twice a block, bilinear up-sampling."""

    @staticmethod
    def layers(in_channels: int, width: int, kernel: int) -> nn.Module:
        """Return the layers of one block."""
        return nn.Sequential(_convolution(in_channels, width, kernel), _convolution(width, width, kernel))

    def pool(self, skip: torch.Tensor) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Halve a feature map; bilinear up-sampling needs no indices."""
        return functional.max_pool2d(skip, 2), None

    def upsample(self, x: torch.Tensor, skip: torch.Tensor, indices: Optional[torch.Tensor]) -> torch.Tensor:
        """Bring ``x`` to the size of the skip connection."""
        return functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)


class Unpooling(EncoderDecoder):
    """An encoder-decoder whose decoders put values back where the encoder's maxima were."""

    def check(self, se: str, aggregation: str) -> None:
        """Raise :class:`ValueError` for concatenation: unpooling needs as many channels as were pooled."""
        if Variant(se) is Variant.SCSE and aggregation == Aggregation.CONCATENATION.value:
            raise ValueError("Concatenation doubles the channels, which max-unpooling cannot take; use it with U-Net.")

    def pool(self, skip: torch.Tensor) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Halve a feature map; return the positions of the maxima, too."""
        return functional.max_pool2d(skip, 2, return_indices=True)

    def upsample(self, x: torch.Tensor, skip: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Bring ``x`` to the size of the skip connection by max-unpooling with the encoder's indices."""
        return functional.max_unpool2d(x, indices, [2, 2], output_size=skip.shape[-2:])


class SDNet(Unpooling):
    """SD-Net (skip-deconv): convolution - batch norm - ReLU once a block, max-unpooling.

    The kernel is 5x5 as in the authors' code; 7x7 has been published for it as well.
    """

    @staticmethod
    def layers(in_channels: int, width: int, kernel: int) -> nn.Module:
        """Return the layers of one block."""
        return _convolution(in_channels, width, kernel)


class DenseNet(Unpooling):
    """Fully convolutional DenseNet: densely connected layers in a block, max-unpooling."""

    layers = DenseLayers

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # A slice's dark half is below its mean: without this the first ReLU would blot it out.
        nn.init.constant_(self.encoders[0].convolutions.first[0].bias, 2.0)  # type: ignore[index,union-attr]


NETWORKS = {Architecture.UNET: UNet, Architecture.SDNET: SDNet, Architecture.DENSENET: DenseNet}


def network_class(architecture):
    """Return the class of an :class:`~.vocabulary.Architecture` or of its value.

    Raises:
        ValueError: there is no such architecture.
    """
    return NETWORKS[known(Architecture, architecture, "architecture")]


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
