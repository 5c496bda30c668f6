"""Training of networks; importing it settles how PyTorch's threads wait, which is too late once that is imported."""

from ..inference.threads import wait_passively

wait_passively()
