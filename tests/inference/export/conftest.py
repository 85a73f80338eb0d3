"""One network, traced and written once, and pictures of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.checkpoints.product import Product
from fixres.inference.export.export import export
from fixres.inference.export.trace import Captured, capture
from fixres.inference.requests import ExportRequest
from tests.support.products import make
from tests.support.shared_runs import shared_run

CAPTURE = "fixres.inference.export.export.capture"


@pytest.fixture(scope="session")
def product() -> Product:
    return make("test_resnet")


@pytest.fixture(scope="session")
def captured(product: Product) -> Captured:
    """The network traced once, since that is what takes long."""
    return capture(product, softmax=False, normalise=False)


@pytest.fixture
def traced_already(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CAPTURE, lambda *a, **k: captured)


@pytest.fixture(scope="session")
def onnx_file(product: Product, shared_folder: Path, request: pytest.FixtureRequest) -> Path:
    """Return the network as ONNX, with the runner and the JSON beside it. To be read, never written."""

    def make_file(folder: Path) -> None:
        captured = request.getfixturevalue("captured")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CAPTURE, lambda *a, **k: captured)
            export(product, ExportRequest(out=folder / "net.onnx"))

    return shared_run(shared_folder, "onnx", make_file) / "net.onnx"


@pytest.fixture(scope="session")
def odd_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of every kind the decoder has a rule for."""
    folder = tmp_path_factory.mktemp("odd")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (90, 130, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((26, 18)).resize((260, 180), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth.save(folder / "turned.jpg", exif=exif, quality=92)
    smooth.save(folder / "plain.jpg", quality=92)
    smooth.convert("L").save(folder / "grey.png")
    smooth.convert("CMYK").save(folder / "cmyk.jpg", quality=92)
    smooth.quantize(32).save(folder / "palette.gif")
    Image.fromarray(generator.integers(0, 65535, (70, 80), dtype=np.uint16)).save(folder / "deep.png")
    layer = smooth.convert("RGBA")
    layer.putalpha(Image.fromarray(np.tile(np.arange(260, dtype=np.uint8), (180, 1))))
    layer.save(folder / "alpha.png")
    smooth.resize((30, 20)).save(folder / "tiny.webp", lossless=True)
    smooth.resize((400, 3)).save(folder / "strip.bmp")
    return sorted(folder.iterdir())
