"""Fully convolutional networks that the paper recalibrates. Input: one single-channel slice."""

import torch
from torch import nn
from torch.nn import functional

from .recalibration import AGGREGATIONS, recalibration


def convolution(in_channels, out_channels, kernel):
    """Convolution ("same" padding) - batch norm - ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """U-Net's block, convolution - batch norm - ReLU twice, then the SE block if there is one."""

    def __init__(self, in_channels, width, kernel, se="none", reduction=2, aggregation="max", se_bias=True):
        super().__init__()
        self.convolutions = nn.Sequential(convolution(in_channels, width, kernel), convolution(width, width, kernel))
        self.se, self.out_channels = recalibration(se, width, reduction, aggregation, se_bias)

    def forward(self, x):
        x = self.convolutions(x)
        return x if self.se is None else self.se(x)


class UNet(nn.Module):
    """The paper's U-Net: ``depth`` encoders, a bottleneck, ``depth`` decoders, a 1x1 classifier.

    The width is the same at every level. An SE block follows each encoder and each decoder (section IV). Up-sampling
    is bilinear interpolation to the size of the skip connection, so that any slice of at least ``2 ** depth`` pixels
    a side passes.

    Args:
        classes: number of classes, background included.
        width: channels of every level (the paper: 64).
        kernel: odd kernel size (the paper: 5).
        depth: number of encoders and of decoders (the paper: 4).
        se: ``"none"``, ``"cse"``, ``"sse"`` or ``"scse"``.
        reduction: the reduction ratio r of cSE.
        aggregation: how scSE joins its branches.
        se_bias: whether SE layers carry biases.

    Raises:
        ValueError: ``kernel`` is even, or ``se`` or ``aggregation`` is unknown.
    """

    def __init__(
        self, classes=32, width=32, kernel=5, depth=4, se="none", reduction=2, aggregation="max", se_bias=True
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"The kernel size must be odd to keep the size of a slice, not {kernel}.")
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"Unknown aggregation '{aggregation}': choose one of {', '.join(AGGREGATIONS)}.")
        self.depth = depth
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        skips, channels = [], 1
        for _ in range(depth):
            self.encoders.append(Block(channels, width, kernel, se, reduction, aggregation, se_bias))
            channels = self.encoders[-1].out_channels
            skips.append(channels)
        self.bottleneck = Block(channels, width, kernel)
        channels = width
        for skip in reversed(skips):
            self.decoders.append(Block(channels + skip, width, kernel, se, reduction, aggregation, se_bias))
            channels = self.decoders[-1].out_channels
        self.classifier = nn.Conv2d(channels, classes, kernel_size=1)

    def forward(self, x):
        """Map slices ``(N, 1, H, W)`` to logits ``(N, classes, H, W)``."""
        skips = []
        for encoder in self.encoders:
            skips.append(encoder(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for decoder, skip in zip(self.decoders, reversed(skips)):
            x = functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = decoder(torch.cat((skip, x), dim=1))
        return self.classifier(x)


NETWORKS = {"unet": UNet}


def parameters(network):
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
