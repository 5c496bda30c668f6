"""Squeeze & excitation blocks: cSE, sSE and scSE (Roy et al., IEEE TMI 2019, section III).

Every block maps a feature map ``U`` of shape ``(N, C, H, W)`` to a recalibrated one of the same shape, save scSE with
concatenation, which doubles the channels. ``out_channels`` of a block says how many channels it gives.
"""

from collections.abc import Callable, Mapping
from typing import Optional, Union, cast

import torch
from torch import nn

from ..choices.vocabulary import Aggregation, Variant, values


class ChannelSE(nn.Module):
    """cSE: squeeze spatially, excite channel-wise, ``U * sigmoid(W2 relu(W1 z))`` (section III-A).

    ``z`` is the global average pool of ``U``, ``W1: C -> max(1, C // r)`` and ``W2`` leads back to ``C``.

    Args:
        channels: C, at least 1.
        reduction: r, at least 1; need not divide C.
        bias: whether ``W1`` and ``W2`` carry biases, as in the authors' code.
    """

    def __init__(self, channels: int, reduction: int = 2, bias: bool = True) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"The reduction ratio must be at least 1, not {reduction}.")
        squeezed = max(1, channels // reduction)
        self.w1 = nn.Linear(channels, squeezed, bias=bias)
        self.w2 = nn.Linear(squeezed, channels, bias=bias)
        self.out_channels = channels
        # A module, so that whoever wants to see the gates can hook it.
        self.gate = nn.Sigmoid()

    def excitation(self, u: torch.Tensor) -> torch.Tensor:
        """Return the channel gates in (0, 1), shape ``(N, C, 1, 1)``."""
        z = u.mean(dim=(2, 3))
        return self.gate(self.w2(torch.relu(self.w1(z))))[:, :, None, None]

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return u * self.excitation(u)


class SpatialSE(nn.Module):
    """sSE: squeeze channel-wise, excite spatially, ``U * sigmoid(w * U)``, a 1x1 convolution C -> 1 (section III-B).

    Args:
        channels: C, at least 1.
        bias: whether the convolution carries a bias, as in the authors' code.
    """

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.w = nn.Conv2d(channels, 1, kernel_size=1, bias=bias)
        self.out_channels = channels
        self.gate = nn.Sigmoid()

    def excitation(self, u: torch.Tensor) -> torch.Tensor:
        """Return the spatial gates in (0, 1), shape ``(N, 1, H, W)``."""
        return self.gate(self.w(u))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return u * self.excitation(u)


# How scSE joins its branches, two tensors of one shape.
AGGREGATE: dict[Aggregation, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    Aggregation.MAX: torch.maximum,
    Aggregation.ADDITION: torch.add,
    Aggregation.MULTIPLICATION: torch.mul,
    Aggregation.CONCATENATION: lambda by_channel, by_space: torch.cat((by_channel, by_space), dim=1),
}


class ChannelSpatialSE(nn.Module):
    """scSE: both at once, ``f(cSE(U), sSE(U))`` (section III-C).

    With ``f = max`` the larger of the two recalibrated *tensors* is taken, not of the two gates: they differ where an
    activation is negative.

    Args:
        channels: C, at least 1.
        reduction: r of the cSE branch.
        aggregation: an :class:`~.vocabulary.Aggregation` or its value; concatenation gives 2C channels.
        bias: whether both branches carry biases.

    Raises:
        ValueError: the aggregation is unknown.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        aggregation: Union[Aggregation, str] = Aggregation.MAX,
        bias: bool = True,
    ) -> None:
        super().__init__()
        chosen: Aggregation = known(Aggregation, aggregation, "aggregation")
        self.join = AGGREGATE[chosen]
        self.channel = ChannelSE(channels, reduction, bias)
        self.spatial = SpatialSE(channels, bias)
        self.out_channels = 2 * channels if chosen is Aggregation.CONCATENATION else channels

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.join(self.channel(u), self.spatial(u))


# The block of every variant but "none", from its channels, reduction ratio, aggregation and bias.
BLOCKS = {
    Variant.CSE: lambda channels, reduction, aggregation, bias: ChannelSE(channels, reduction, bias),
    Variant.SSE: lambda channels, reduction, aggregation, bias: SpatialSE(channels, bias),
    Variant.SCSE: ChannelSpatialSE,
}


def known(choices, value, what):
    """Return the member of an enum.

    Raises:
        ValueError: there is none of this value.
    """
    try:
        return choices(value)
    except ValueError:
        raise ValueError(f"Unknown {what} '{value}': choose one of {', '.join(values(choices))}.") from None


def recalibration(
    se: Union[Variant, str],
    channels: int,
    reduction: int = 2,
    aggregation: Union[Aggregation, str] = Aggregation.MAX,
    bias: bool = True,
) -> tuple[Optional[nn.Module], int]:
    """Build the SE block of a variant.

    Args:
        se: a :class:`~.vocabulary.Variant` or its value.
        channels: C of the feature maps that it recalibrates, at least 1.
        reduction: the reduction ratio r of cSE.
        aggregation: how scSE joins its branches, an :class:`~.vocabulary.Aggregation` or its value.
        bias: whether its layers carry biases.

    Returns:
        ``(block, out_channels)``; ``block`` is ``None`` for ``"none"``.

    Raises:
        ValueError: there is no such variant or aggregation.
    """
    variant = known(Variant, se, "squeeze & excitation variant")
    if variant is Variant.NONE:
        return None, channels
    block = BLOCKS[variant](channels, reduction, aggregation, bias)
    return block, cast(int, block.out_channels)


# Layer names in the authors' package `squeeze_and_excitation`, and here.
AUTHORS_NAMES = {"cSE": "channel", "sSE": "spatial", "fc1": "w1", "fc2": "w2", "conv": "w"}


def from_authors_layout(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the entries of an SE block's state dict from the authors' package to this one's names.

    =====================  ==============  ===================================
    ``ChannelSELayer``     ``ChannelSE``   ``fc1 -> w1``, ``fc2 -> w2``
    ``SpatialSELayer``     ``SpatialSE``   ``conv -> w``
    ``ChannelSpatialSE..`` both            ``cSE -> channel``, ``sSE -> spatial``
    =====================  ==============  ===================================

    Args:
        state_dict: the state dict of one ``ChannelSELayer``, ``SpatialSELayer`` or ``ChannelSpatialSELayer``.

    Raises:
        ValueError: an entry belongs to none of these layers.
    """
    renamed = {}
    for name, tensor in state_dict.items():
        *layers, kind = name.split(".")
        unknown = [layer for layer in layers if layer not in AUTHORS_NAMES]
        if unknown or not layers:
            raise ValueError(f"'{name}' is not an entry of an SE layer of the authors' package.")
        renamed[".".join([AUTHORS_NAMES[layer] for layer in layers] + [kind])] = tensor
    return renamed
