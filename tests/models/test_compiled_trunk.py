"""A fix whose trunk OpenVINO computes: the same head in the same bits, and only where its values are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.models import compiled_trunk
from fixres.models.build import build_model
from fixres.models.compiled_trunk import pays
from fixres.runtime.device import Runtime
from fixres.training.cached_solver import solve
from tests.support.solver_problems import problem, warm

pytest.importorskip("openvino")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_trunk, "PAYS_FROM", 0.0)


@pytest.mark.usefixtures("always", "few_decays")
@pytest.mark.parametrize("moves", ["head+stats", "head"])
@pytest.mark.parametrize("cache_gib", [2.0, 0.0])
def test_the_head_is_the_one_that_pytorch_finds_and_repeats_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: str, cache_gib: float
) -> None:
    networks = [warm(), warm(), warm()]
    found = [
        solve.solve(problem(network, tmp_path / str(i), moves, cache_gib=cache_gib))
        for i, network in enumerate(networks[:2])
    ]
    monkeypatch.setattr(compiled_trunk, "PAYS_FROM", 1e9)
    by_torch = solve.solve(problem(networks[2], tmp_path / "torch", moves, cache_gib=cache_gib))
    assert [one.path for one in found] == ["openvino", "openvino"]
    assert by_torch.path == "folded"
    for name, tensor in networks[0].state_dict().items():
        assert torch.equal(tensor, networks[1].state_dict()[name]), name
        torch.testing.assert_close(tensor, networks[2].state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("always", "few_decays")
def test_other_values_than_pytorchs_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compiled_trunk.compile_openvino
    monkeypatch.setattr(
        compiled_trunk,
        "compile_openvino",
        lambda *given: lambda x: [np.asarray(array * 1.001) for array in compiled(*given)(x)],
    )
    assert solve.solve(problem(warm(), tmp_path)).path == "folded"


def test_it_pays_on_a_cpu_in_float32_from_some_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("resnet18", 2)
    plain, half = Runtime(RuntimeSettings()), Runtime(RuntimeSettings(precision="bf16"))
    # 1.8 GMACs a picture at 224 px.
    assert pays(plain, model, 224, 100)
    assert not pays(plain, model, 224, 50)
    assert not pays(half, model, 224, 100)
    monkeypatch.setattr(compiled_trunk, "find_spec", lambda _: None)
    assert not pays(plain, model, 224, 100)
