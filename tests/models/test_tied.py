"""Weight-tied and untied layers: against hand-written loops, limits and counts; and what is refused."""

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# Wrong types are the point of the last table.

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio.checks import JiioError
from jiio.models import (
    ConvConfig,
    DenseConfig,
    EquilibriumModel,
    ModelConfig,
    TiedModel,
    UntiedModel,
    build,
    classifier,
    sparse_masks,
)
from jiio.tasks.classify.layers import TiedLayers, UntiedLayers
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build as build_config

DOUBLE = torch.float64
DENSE = ModelConfig(DenseConfig(6, gain=0.5), (1, 3, 3), "classifier", (3,))


def dense() -> EquilibriumModel:
    torch.manual_seed(0)
    return build(DENSE).double().eval()


def conv(**options: object) -> EquilibriumModel:
    torch.manual_seed(0)
    return classifier(ConvConfig(4, groups=2, **options), image=(1, 4, 4), classes=3).double().eval()


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(side: int = 3) -> Tensor:
    return torch.rand(4, 1, side, side, generator=drawn(9), dtype=DOUBLE)


def test_tied_layers_are_the_cell_again_and_again() -> None:
    model, x = dense(), pictures()
    z = torch.zeros(4, 6, dtype=DOUBLE)
    for _ in range(3):
        z = torch.tanh(z @ model.cell.weight.T + model.inject(x))  # type: ignore[operator,union-attr]
    assert torch.allclose(TiedModel(model, 3)(x), model.head(z), rtol=1e-12)


def test_many_tied_layers_are_the_equilibrium_and_have_its_gradient() -> None:
    model, x = dense(), pictures()
    model.tolerance, model.adjoint = jiio.Tolerance(1e-12, 1e-12), jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12))
    slopes = []
    for network in (model, TiedModel(model, 80)):
        said = network(x)
        slopes.append((said, torch.autograd.grad(said.square().sum(), [*model.cell.parameters()])))
    assert torch.allclose(slopes[0][0], slopes[1][0], atol=1e-10)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(slopes[0][1], slopes[1][1], strict=True))


def test_every_layer_of_a_dense_cell_has_its_own_mask() -> None:
    model, x = dense(), pictures()
    masks = sparse_masks(model.cell, 3, 0.5, generator=drawn())
    z = torch.zeros(4, 6, dtype=DOUBLE)
    for mask in masks:
        z = torch.tanh(z @ (model.cell.weight * mask["weight"]).T + model.inject(x))  # type: ignore[operator,union-attr]
    assert torch.allclose(TiedModel(model, 3, masks=masks)(x), model.head(z), rtol=1e-12)
    assert not torch.equal(masks[0]["weight"], masks[1]["weight"])
    assert masks[0]["weight"].unique().tolist() == pytest.approx([0.0, 2**0.5])


@pytest.mark.parametrize("weight_norm", [True, False])
def test_kernels_are_masked_entry_by_entry_under_weight_norm_too(weight_norm: bool) -> None:
    model = conv(weight_norm=weight_norm)
    masks = sparse_masks(model.cell, 2, 0.4, generator=drawn())
    last = "parametrizations.weight.original1" if weight_norm else "weight"
    assert set(masks[0]) == {f"block.conv1.{last}", f"block.conv2.{last}"}  # neither norms' gains nor lengths
    zeros = torch.cat([(t == 0).flatten() for mask in masks for t in mask.values()]).double().mean()
    assert 0.33 < float(zeros) < 0.47

    # By hand: the weights of the cell overwritten before each layer.
    tied, x = TiedModel(model, 2, masks=masks), pictures(4)
    with torch.no_grad():
        found, u = tied(x), model.inject(x)
        kept = {name: p.clone() for name, p in model.cell.named_parameters()}
        z = model.cell.initial_state(u)  # type: ignore[operator]
        for mask in masks:
            for name, p in model.cell.named_parameters():
                p.copy_(kept[name] * mask.get(name, 1.0))
            seen = model.cell.block.conv1.weight.clone()  # type: ignore[union-attr]
            assert torch.equal(seen == 0, mask[f"block.conv1.{last}"] == 0)
            z = model.cell(z, u)
    assert torch.allclose(found, model.head(z), rtol=1e-10)


def test_masked_weights_get_no_gradient_and_masks_are_no_weights() -> None:
    model, x = dense(), pictures()
    (mask,) = sparse_masks(model.cell, 1, 0.5, generator=drawn())
    tied = TiedModel(model, 4, masks=(mask,) * 4)
    tied(x).square().sum().backward()
    slope = model.cell.weight.grad
    assert slope is not None and torch.equal(slope == 0, mask["weight"] == 0)
    assert set(tied.state_dict()) == {n for n in model.state_dict() if n.split(".")[0] in ("inject", "cell", "head")}
    assert tied.float().mask(0)["weight"].dtype == torch.float32  # they move with the model


def test_gradients_through_masked_layers_by_finite_differences() -> None:
    model, x = conv(activation="softplus"), pictures(4)[:1].requires_grad_()
    tied = TiedModel(model, 3, masks=sparse_masks(model.cell, 3, 0.5, generator=drawn()))
    assert torch.autograd.gradcheck(lambda v: tied(v)[:, 0], (x,), eps=1e-6, atol=1e-6)


def test_untied_layers_have_weights_of_their_own() -> None:
    torch.manual_seed(0)
    one, many = build(DENSE), UntiedModel(DENSE, 4).double()
    count = [sum(p.numel() for p in m.parameters()) for m in (one, many)]
    assert count[1] - count[0] == 3 * 36
    x, z = pictures(), torch.zeros(4, 6, dtype=DOUBLE)
    u = many.inject(x)
    for cell in many.cells:
        z = torch.tanh(z @ cell.weight.T + u)  # type: ignore[operator,union-attr]
    assert torch.allclose(many(x), many.head(z)) and not torch.equal(many.cells[0].weight, many.cells[1].weight)  # type: ignore[arg-type]


def test_dropout_is_drawn_once_for_all_layers() -> None:
    model = conv(dropout=0.5).train()
    tied, x = TiedModel(model, 3, masks=sparse_masks(model.cell, 3, 0.3, generator=drawn())), pictures(4)
    torch.manual_seed(1)
    first = tied(x)
    torch.manual_seed(1)
    assert torch.equal(first, tied(x)) and not torch.equal(first, tied(x))


# -- in a configuration


def config(*defence: dict, cell: str = "Dense", **more: object) -> ClassifyConfig:
    options = {"features": 8} if cell == "Dense" else {}
    given = {"task": "classify", "steps": 2, "data": {"size": 8, "batch_size": 4}, "defence": list(defence)}
    return build_config(ClassifyConfig, given | {"model": {"cell": {"name": cell, "options": options}}} | more)


def entry(name: str, **options: object) -> dict:
    return {"name": name, "options": options}


def test_a_training_takes_layers_in_the_place_of_the_equilibrium() -> None:
    for made, kind in ((entry("TiedLayers", layers=2, sparsity=0.5), TiedModel), (entry("UntiedLayers"), UntiedModel)):
        task = Classify(config(made))
        model = task.model()
        assert isinstance(model, kind)
        loss, _ = task.loss(model, 0)
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
    # What a checkpoint does not hold is the same again.
    masks = [TiedLayers(2, 0.5, mask_seed=3).network(dense()).mask(1)["weight"] for _ in range(2)]  # type: ignore[operator]
    assert torch.equal(*masks)
    shared = TiedLayers(2, 0.5, "shared").network(dense())
    assert torch.equal(shared.mask(0)["weight"], shared.mask(1)["weight"])  # type: ignore[operator]


CELL = DenseConfig(4).cell()
MASKS = sparse_masks(dense().cell, 2, 0.5, generator=drawn())
BAD = {
    "no layers": (lambda: TiedModel(dense(), 0), "layers"),
    "no model": (lambda: TiedModel(nn.Linear(2, 2), 2), "model"),
    "masks of other layers": (lambda: TiedModel(dense(), 3, masks=MASKS), "each of the 3 layers"),
    "masks of another cell": (lambda: TiedModel(conv(), 2, masks=MASKS), "very cell"),
    "masks a tensor": (lambda: TiedModel(dense(), 2, masks=MASKS[0]["weight"]), "sparse_masks makes"),
    "layers half": (lambda: sparse_masks(CELL, 1.5, 0.5, generator=drawn()), "layers"),
    "all masked": (lambda: sparse_masks(CELL, 2, 1.0, generator=drawn()), "sparsity"),
    "sparsity negative": (lambda: sparse_masks(CELL, 2, -0.1, generator=drawn()), "sparsity"),
    "generator a seed": (lambda: sparse_masks(CELL, 2, 0.5, generator=3), "generator"),
    "nothing to mask": (lambda: sparse_masks(nn.LayerNorm(4), 2, 0.5, generator=drawn()), "LayerNorm"),
    "a cell that is none": (lambda: sparse_masks("cell", 2, 0.5, generator=drawn()), "cell"),
    "untied, no layers": (lambda: UntiedModel(DENSE, 0), "layers"),
    "untied, no config": (lambda: UntiedModel(dense(), 2), "config"),
    "entry, no layers": (lambda: TiedLayers(0), "TiedLayers.layers"),
    "entry, sparse": (lambda: TiedLayers(2, 1.0), "TiedLayers.sparsity"),
    "entry, masks": (lambda: TiedLayers(2, 0.5, "none"), "'shared'"),
    "entry, seed": (lambda: TiedLayers(2, 0.5, mask_seed=-1), "mask_seed"),
    "entry, untied": (lambda: UntiedLayers(0), "UntiedLayers.layers"),
    "untied twice": (lambda: UntiedLayers().network(TiedModel(dense(), 2)), "EquilibriumModel"),
    "beside the plain network": (lambda: config(entry("TiedLayers"), cell="Reference"), "needs an equilibrium"),
    "beside a penalty": (lambda: config(entry("TiedLayers"), entry("JacobianPenalty")), "which leaves none"),
    "both": (lambda: config(entry("UntiedLayers"), entry("TiedLayers")), "which leaves none"),
    "a warm beginning": (lambda: config(entry("TiedLayers"), warm={"steps": 3}), "warm.steps"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_mistakes_get_a_sentence(make, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        make()
