"""GRU with a gradient written out, beside torch's own."""

import pytest
import torch
from torch import Tensor, nn

from neurovocal.models.toolkit.gru import SequenceGru


def results(layer: nn.GRU, length: int, batch: int) -> list[Tensor]:
    """Outputs, state, and the gradients of a loss that needs all of them."""
    draw = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, 5, generator=draw, requires_grad=True)
    h = torch.randn(1, batch, 7, generator=draw, requires_grad=True)
    weight = torch.randn(batch, length, 7, generator=draw)
    layer.zero_grad()
    outputs, state = layer(x, h)
    ((outputs * weight).sum() + state.square().sum()).backward()  # type: ignore[no-untyped-call]
    gradients = [x.grad, h.grad, *(p.grad for p in layer.parameters())]
    assert all(g is not None for g in gradients)
    return [
        outputs.detach(),
        state.detach(),
        *(g.clone() for g in gradients if g is not None),
    ]


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (9, 4)])
def test_outputs_and_gradients_are_those_of_torch(length: int, batch: int) -> None:
    torch.manual_seed(0)
    usual, own = nn.GRU(5, 7, batch_first=True), SequenceGru(5, 7)
    own.load_state_dict(usual.state_dict())
    for expected, found in zip(
        results(usual, length, batch), results(own, length, batch), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_a_gradient_outputs_are_the_same() -> None:
    own = SequenceGru(5, 7)
    x, h = torch.randn(2, 6, 5), torch.zeros(1, 2, 7)
    with torch.no_grad():
        outputs, state = own(x, h)
    found, last = own(x, h)
    torch.testing.assert_close(found, outputs)
    torch.testing.assert_close(last, state)
