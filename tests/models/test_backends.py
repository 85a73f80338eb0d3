"""OpenVINO and ONNX Runtime compute PyTorch's logits, or are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.models.backends import BackendName, make_backend, require_agreement
from fixres.models.build import build_model

SIZE = 32


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    built = build_model("test_resnet", 5, init="torch").to(memory_format=torch.channels_last)
    # Statistics as training leaves them: a converter that forgot them would not be noticed otherwise.
    with torch.no_grad():
        built.train()(torch.randn(16, 3, SIZE, SIZE) * 2 + 1)
    return built


@pytest.mark.parametrize("name", ["torch", "openvino", "onnxruntime"])
def test_logits_are_those_of_pytorch_for_any_number_of_pictures(name: BackendName, model: nn.Module) -> None:
    if name != "torch":
        pytest.importorskip(name)
    model.train()
    model.layer1.eval()
    backend = make_backend(name, model, SIZE, threads=1)
    if name != "torch":
        assert model.layer2.training
        assert not model.layer1.training
    model.eval()
    images = torch.randn(9, 3, SIZE, SIZE)
    assert require_agreement(backend, model, images) < 1e-5
    with torch.inference_mode():
        expected = model(images)
    for count in (1, 2, 9):
        found = backend.logits(images[:count].to(memory_format=torch.channels_last))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-4)


class Skewed:
    """A backend that is wrong by a factor."""

    name: BackendName = "openvino"

    def __init__(self, model: nn.Module, factor: float) -> None:
        self.model, self.factor = model, factor

    def logits(self, images: Tensor) -> Tensor:
        return self.model(images) * self.factor


@pytest.mark.parametrize("factor", [1.002, float("nan")])
def test_a_backend_that_computes_something_else_is_refused(model: nn.Module, factor: float) -> None:
    images = torch.randn(4, 3, SIZE, SIZE)
    assert require_agreement(Skewed(model.eval(), 1.0005), model, images) == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(UserError, match="openvino computes other logits than PyTorch"):
        require_agreement(Skewed(model, factor), model, images)


@pytest.mark.parametrize(("name", "extra"), [("openvino", "openvino"), ("onnxruntime", "export")])
def test_a_missing_package_is_named_with_its_install_line(
    name: BackendName, extra: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"'{name}', which is not installed\n  pip install 'fixres\[{extra}\]'"):
        make_backend(name, model, SIZE, threads=1)


def test_a_network_that_cannot_be_converted_is_one_clear_message() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("only on Tuesdays\nand a long trace")

    pytest.importorskip("openvino")
    with pytest.raises(UserError, match=r"openvino cannot take this network \(") as caught:
        make_backend("openvino", Odd(), SIZE, threads=1)
    assert len(str(caught.value).splitlines()) == 2


OPENVINO_ALONE = """
import os, signal, sys
import torch
from fixres.models.backends import import_openvino, make_backend

import_openvino()
from openvino.tools.ovc import telemetry_utils

assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub", telemetry_utils.tm
assert sys.modules["openvino_telemetry"] is None

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5)).eval()
for order in ((0, 1), (1, 0)):
    made = [make_backend("openvino", model, 8, threads=1) for _ in range(2)]
    for i in order:
        made[i] = None
    heard.clear()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heard, order
"""


def test_openvino_reports_nothing_to_its_makers_and_leaves_signals_alone_in_whatever_order_networks_end() -> None:
    pytest.importorskip("openvino")
    subprocess.run([sys.executable, "-c", OPENVINO_ALONE], check=True)
