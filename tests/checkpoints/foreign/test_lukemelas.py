"""EfficientNets under efficientnet_pytorch's names are translated tensor by tensor, or refused."""

from __future__ import annotations

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn

from fixres.checkpoints.foreign.fit import fit
from fixres.checkpoints.foreign.lukemelas import efficientnet_names, from_lukemelas
from fixres.errors import UserError
from fixres.io.tensors import read_weights
from fixres.models.build import build_model, load_strict
from fixres.models.pretrained import PACKAGED_WEIGHTS, packaged_file
from tests.support.networks import skeleton


def packaged(source: str) -> dict[str, torch.Tensor]:
    path = packaged_file(source)
    assert path is not None
    return read_weights(path)


@pytest.fixture(scope="module")
def lite0() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return build_model("tf_efficientnet_lite0", 1000), packaged("package:efficientnet-lite0")


@pytest.mark.parametrize("source", PACKAGED_WEIGHTS)
def test_packaged_weights_map_tensor_by_tensor(source: str) -> None:
    model, state = build_model(PACKAGED_WEIGHTS[source], 1000), packaged(source)
    renamed = from_lukemelas(state, model, "package")
    load_strict(model, renamed, "package")
    assert len(renamed) == len(state) == len(model.state_dict())
    for (theirs, tensor), (ours, own) in zip(state.items(), model.state_dict().items(), strict=True):
        assert efficientnet_names(model)[theirs] == ours
        assert torch.equal(tensor, own)


@pytest.mark.parametrize("fault", ["swapped", "renamed", "missing", "extra", "transposed"])
def test_a_wrong_map_fails_and_never_half_loads(
    lite0: tuple[torch.nn.Module, dict[str, torch.Tensor]], fault: str
) -> None:
    model, good = lite0
    state = dict(good)
    names = list(state)
    if fault == "swapped":  # two tensors of one shape change places: shapes alone cannot tell
        order = [names[1] if n == names[2] else names[2] if n == names[1] else n for n in names]
        state = {name: state[name] for name in order}
    elif fault == "renamed":
        state = {("_bn9" + n[4:] if n.startswith("_bn0") else n): t for n, t in state.items()}
    elif fault == "missing":
        del state["_blocks.3._bn1.bias"]
    elif fault == "extra":
        state["_surprise.weight"] = torch.zeros(1)
    else:
        state["_fc.weight"] = state["_fc.weight"].T
    with pytest.raises(UserError):
        from_lukemelas(state, model, "package")


State = dict[str, Tensor]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm statistics and weights of its own, so that a swapped pair changes the outputs."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1)
        elif tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    return model.eval()


def theirs(name: str, num_classes: int) -> nn.Module:
    return randomised(EfficientNet.from_name(name, num_classes=num_classes, image_size=None))


@pytest.mark.parametrize(("name", "sizes"), [("b0", (224, 161)), ("b1", (96,))])
def test_an_efficientnet_of_efficientnet_pytorch_gives_its_own_outputs(name: str, sizes: tuple[int, ...]) -> None:
    source = EfficientNet.from_name(f"efficientnet-{name}", num_classes=7)
    randomised(source)
    state, note = fit(source.state_dict(), skeleton(f"tf_efficientnet_{name}"), "FILE")
    assert "efficientnet_pytorch" in note
    ours = build_model(f"tf_efficientnet_{name}", 7)
    load_strict(ours, state, "FILE")
    ours.eval()
    for size in sizes:
        images = torch.randn(2, 3, size, size)
        # Their padding is fixed for the image size a network is made with.
        at_size = EfficientNet.from_name(f"efficientnet-{name}", num_classes=7, image_size=size).eval()
        at_size.load_state_dict(source.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(ours(images), at_size(images), rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", [*(f"b{i}" for i in range(9)), "l2"])
def test_every_efficientnet_has_their_names(name: str) -> None:
    with torch.device("meta"):
        state = EfficientNet.from_name(f"efficientnet-{name}").state_dict()
    model = skeleton(f"tf_efficientnet_{name}")
    fitted, _ = fit(state, model, "FILE")
    assert list(fitted) == list(model.state_dict())
    assert all(fitted[n].shape == t.shape for n, t in model.state_dict().items())


@pytest.mark.parametrize("number", range(5))
def test_every_lite_variant_has_a_name_for_every_tensor(number: int) -> None:
    model = skeleton(f"tf_efficientnet_lite{number}")
    names = efficientnet_names(model)
    assert list(names.values()) == list(model.state_dict())
    blocks = [int(name.split(".")[1]) for name in names if name.startswith("_blocks.")]
    assert blocks == sorted(blocks)
    assert set(blocks) == set(range(sum(len(stage) for stage in model.blocks)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def b0() -> State:
    return dict(theirs("efficientnet-b0", 7).state_dict())


def test_their_files_without_counters_sorted_or_without_classifier_fit(b0: State) -> None:
    model = skeleton("tf_efficientnet_b0", 7)
    full, _ = fit(b0, model, "FILE")
    without = {n: t for n, t in b0.items() if not n.endswith("num_batches_tracked")}
    by_name = {n: b0[n] for n in sorted(b0)}
    headless = {n: t for n, t in b0.items() if not n.startswith("_fc")}
    for state, absent in ((without, "num_batches_tracked"), (by_name, "nothing"), (headless, "classifier")):
        fitted, _ = fit(state, model, "FILE")
        assert set(full) - set(fitted) == {n for n in full if absent in n}
        assert all(fitted[n] is full[n] for n in fitted)


@pytest.mark.parametrize("fault", ["order", "unknown", "missing", "shape", "classifier"])
def test_a_wrong_efficientnet_is_refused(b0: State, fault: str) -> None:
    state, model = dict(b0), skeleton("tf_efficientnet_b0", 7)
    if fault == "order":
        state["_conv_stem.weight"] = state.pop("_conv_stem.weight")
    elif fault == "unknown":
        state["_surprise.weight"] = torch.zeros(1)
    elif fault == "missing":
        del state["_blocks.3._bn1.bias"]
    elif fault == "shape":
        model = skeleton("tf_efficientnet_b3", 7)
    else:
        state["_fc.weight"] = state["_fc.weight"][:5]
        with pytest.raises(UserError, match=r"'classifier\.weight' is \[5, 1280\], the network's \[7, 1280\]"):
            from_lukemelas(state, model, "FILE")
        return
    with pytest.raises(UserError, match="FILE"):
        fit(state, model, "FILE")


def test_their_names_for_another_network_are_said(b0: State) -> None:
    with pytest.raises(UserError, match="under efficientnet_pytorch's names, not 'test_resnet'"):
        fit(b0, build_model("test_resnet", 3), "FILE")
