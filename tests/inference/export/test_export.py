from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from fixres.checkpoints.product import Product
from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.inference.export import int8
from fixres.inference.export.export import export, place
from fixres.inference.export.export import export as engine_module
from fixres.inference.export.open_exported import open_exported
from fixres.inference.export.parity import shapes_to_check
from fixres.inference.export.trace import Captured, capture
from fixres.inference.predict import Predictor
from fixres.inference.requests import ExportRequest
from fixres.models.build import build_model
from fixres.models.sizes import at_size, bound_size
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

SUBPROCESS_ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network with weights that leave no branch at zero and no statistics at their start."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.dim() == 1:
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        for name in ("gamma", "layer_scale", "ls1", "ls2"):
            scale = getattr(module, name, None)
            if isinstance(scale, nn.Parameter):
                nn.init.uniform_(scale, 0.3, 1, generator=generator)
    return model.eval()


def make(name: str, size: int = 64, **changes: Any) -> Product:
    torch.manual_seed(0)
    model = lively(build_model(name, 5, init="timm"))
    preprocess = replace(Preprocess(size), **changes)
    found = Product(model, name, tuple("abcde"), preprocess, 96, "raw", {}, True, {}, f"memory/{name}")
    return found if bound_size(model) is None else replace(found, model=at_size(model, size))


@pytest.fixture(scope="module")
def product() -> Product:
    return make("test_resnet")


@pytest.fixture(scope="module")
def captured(product: Product) -> Captured:
    """The network traced once, since that is what takes long."""
    return capture(product, softmax=False, normalise=False)


@pytest.fixture
def traced_already(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "capture", lambda *a, **k: captured)


@pytest.fixture(scope="module")
def onnx_file(product: Product, captured: Captured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "capture", lambda *a, **k: captured)
        return export(product, ExportRequest(out=tmp_path_factory.mktemp("onnx") / "net.onnx")).path


@pytest.fixture(scope="module")
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


def probabilities(product: Product, paths: list[Path]) -> np.ndarray:
    predictor = Predictor(product, Runtime(RuntimeSettings(device="cpu", threads=1)), len(product.classes))
    rows = [dict(found.top) for found in predictor(paths)]
    return np.array([[row[name] for name in product.classes] for row in rows])


@pytest.mark.usefixtures("traced_already")
@pytest.mark.parametrize("kind", ["onnx", "torch", "openvino"])
def test_a_file_gives_the_networks_answers_at_every_size_it_names(
    product: Product, tmp_path: Path, kind: Any, onnx_file: Path
) -> None:
    path = onnx_file if kind == "onnx" else export(product, ExportRequest(out=tmp_path, format=kind)).path
    opened = open_exported(path)
    assert opened.sheet.accepted.step == 1
    for batch, height, width in ((1, 64, 64), (3, 131, 67), (2, 200, 96)):
        images = torch.randn(batch, 3, height, width)
        with torch.inference_mode():
            wanted = product.model(images).numpy()
        assert np.abs(opened.outputs(images.numpy()) - wanted).max() < 1e-4 * np.ptp(wanted)
    with pytest.raises(UserError, match="takes any height and width from 64, not 32 x 64"):
        opened.outputs(np.zeros((1, 3, 32, 64), np.float32))


def test_the_file_and_the_json_beside_it_say_how_to_feed_it(product: Product, onnx_file: Path) -> None:
    beside = json.loads(onnx_file.with_suffix(".json").read_text())
    inside = {entry.key: entry.value for entry in onnx.load(str(onnx_file)).metadata_props}
    assert json.loads(inside["fixres"]) == beside
    p = product.preprocess
    wanted = {
        "classes": list("abcde"),
        "size": 64,
        "train_size": 96,
        "resize_size": p.resize_size,
        "crop_ratio": 0.875,
        "interpolation": "bilinear",
        "mean": list(p.mean),
        "std": list(p.std),
        "value_range": [0, 1],
        "output": "logits",
        "opset": 20,
        "architecture": "test_resnet",
    }
    assert {key: beside[key] for key in wanted} == wanted
    assert len(beside["checkpoint_sha256"]) == 64
    assert onnx.load(str(onnx_file)).opset_import[0].version == 20
    dims = [d.dim_param or d.dim_value for d in onnx.load(str(onnx_file)).graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]


def test_the_hash_is_that_of_the_weights(product: Product, onnx_file: Path) -> None:
    from fixres.inference.export.metadata import checkpoint_hash

    assert open_exported(onnx_file).sheet.checkpoint_sha256 == checkpoint_hash(product)
    other = make("test_resnet")
    assert checkpoint_hash(other) == checkpoint_hash(product)
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-6)
    assert checkpoint_hash(other) != checkpoint_hash(product)


def test_softmax_and_normalisation_can_be_part_of_the_file(product: Product, tmp_path: Path) -> None:
    found = export(product, ExportRequest(out=tmp_path / "whole.onnx", softmax=True, normalise=True))
    assert (found.sheet.value_range, found.sheet.output) == ((0, 255), "probabilities")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64)).astype(np.float32)
    rows = open_exported(found.path).outputs(pixels)
    assert rows.sum(1) == pytest.approx(1, abs=1e-5)
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (product.preprocess.mean, product.preprocess.std))
    with torch.inference_mode():
        wanted = product.model(torch.from_numpy((pixels / 255 - mean) / std)).softmax(1)
    assert rows == pytest.approx(wanted.numpy(), abs=1e-4)


NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "fixres", "timm", "torchvision", "simplejpeg"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("resize", ["shorter", "height", "squash", "pad"])
def test_the_runner_gives_the_same_answers_where_there_is_no_torch(
    product: Product, onnx_file: Path, odd_pictures: list[Path], tmp_path: Path, resize: Any
) -> None:
    product = replace(product, preprocess=replace(product.preprocess, resize=resize, interpolation="bicubic"))
    # Only the sheet differs: the network itself need not be written four times.
    proto = onnx.load(str(onnx_file))
    sheet = json.loads(proto.metadata_props[0].value) | {"resize": resize, "interpolation": "bicubic"}
    proto.metadata_props[0].value = json.dumps(sheet)
    onnx.save(proto, str(tmp_path / "net.onnx"))
    runner = onnx_file.with_name("run_onnx.py")
    command = [sys.executable, "-c", NO_TORCH, str(runner), str(tmp_path / "net.onnx"), "--json", *odd_pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=SUBPROCESS_ENV)
    assert done.returncode == 0, done.stderr
    rows = np.array([json.loads(line)["probabilities"] for line in done.stdout.splitlines()])
    assert np.abs(rows - probabilities(product, odd_pictures)).max() < 2e-5


def test_the_runner_names_what_it_cannot_read_and_goes_on(
    onnx_file: Path, odd_pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "no.jpg").write_text("no picture")
    command = [sys.executable, str(onnx_file.with_name("run_onnx.py")), str(onnx_file)]
    files = [str(tmp_path / "no.jpg"), str(odd_pictures[0])]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False, env=SUBPROCESS_ENV)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, str(odd_pictures[0]))
    assert "no.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    small = subprocess.run(
        [*command, files[1], "--size", "20"], capture_output=True, text=True, check=False, env=SUBPROCESS_ENV
    )
    assert small.returncode == 1
    assert "size 20" in small.stderr


def test_a_file_that_disagrees_is_refused_and_leaves_nothing(
    product: Product, captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lively(build_model("test_resnet", 5), seed=7)
    monkeypatch.setattr(engine_module, "capture", lambda *a, **k: replace(captured, eager=other))
    (tmp_path / "net.pt2").write_text("the file that was there")
    with pytest.raises(UserError, match="does not give the network's answers: at 64 x 64"):
        export(product, ExportRequest(out=tmp_path / "net.pt2", format="torch"))
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]
    assert (tmp_path / "net.pt2").read_text() == "the file that was there"


@pytest.mark.usefixtures("traced_already")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    export(product, ExportRequest(out=tmp_path / "net.pt2", format="torch"))
    before = (tmp_path / "net.pt2").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(UserError, match="No space left"):
        export(product, ExportRequest(out=tmp_path / "net.pt2", format="torch"))
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.pt2"]
    assert (tmp_path / "net.pt2").read_bytes() == before


def test_padding_by_the_input_becomes_constant_and_the_file_takes_multiples_of_32() -> None:
    found = capture(make("tf_mobilenetv3_small_minimal_100", 64), softmax=False, normalise=False)
    assert found.sizes.describe() == "heights and widths that are multiples of 32 from 32"
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        assert torch.equal(found.program.module()(images), found.eager(images))


def test_a_network_bound_to_one_size_is_exported_for_it_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.inference.export.trace.larger_size", lambda *_: None)
    found = capture(make("test_resnet"), softmax=False, normalise=False)
    assert found.sizes.describe() == "64 x 64 only"
    assert found.reason == "the architecture takes one size only"


def test_the_shapes_compared_include_one_that_is_no_square(product: Product, onnx_file: Path) -> None:
    shapes = shapes_to_check(open_exported(onnx_file).sheet)
    assert shapes[0] == (64, 64)
    assert len({h for h, w in shapes if h == w}) == 2
    assert any(h != w for h, w in shapes)


@pytest.mark.parametrize(
    ("out", "kind", "wanted"),
    [
        ("a.onnx", "onnx", "a.onnx"),
        ("a", "onnx", "a/model.onnx"),
        ("v1.2", "torch", "v1.2/model.pt2"),
        ("a.xml", "openvino", "a.xml"),
    ],
)
def test_out_is_a_file_or_a_folder(out: str, kind: Any, wanted: str) -> None:
    assert place(Path(out), kind) == Path(wanted)


@pytest.mark.parametrize(("out", "kind"), [("a.pt2", "onnx"), ("a.onnx", "torch"), ("a.bin", "openvino")])
def test_a_name_of_another_format_is_an_error(out: str, kind: Any) -> None:
    with pytest.raises(UserError, match="does not end in"):
        place(Path(out), kind)


def test_a_place_that_cannot_be_written_is_an_error(product: Product, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export(product, ExportRequest(out=tmp_path / "file" / "net.pt2", format="torch"))


def test_damaged_and_foreign_files_are_errors(onnx_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged or no model"):
        open_exported(damaged)
    proto = onnx.load(str(onnx_file))
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "foreign.onnx"))
    with pytest.raises(UserError, match="was not written by `fixres export`"):
        open_exported(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="do not run on torch"):
        open_exported(onnx_file, "torch")
    with pytest.raises(UserError, match="no such file"):
        open_exported(tmp_path / "missing.onnx")


def test_the_command_compares_on_pictures_given_and_prints_what_it_found(
    make_recipe: Callable[..., Any], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fixres.cli.main import main
    from fixres.training.run import run_recipe

    recipe = make_recipe(data={"uri": str(photos)}, train={"epochs": 1, "size": 64})
    run_recipe(recipe, tmp_path / "run")
    words = ["export", str(tmp_path / "run"), "--format", "torch", "--json"]
    assert main([*words, "--out", str(tmp_path / "a.pt2")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["compared_on"].startswith("10 pictures of the val split of ")
    assert all(row["num_same_top1"] == row["num_images"] for row in answer["agreement"])
    assert answer["sheet"]["checkpoint"] == "run/model"
    assert main([*words, "--out", str(tmp_path / "b.pt2"), "--pictures", str(photos / "val" / "red")]) == 0
    assert json.loads(capsys.readouterr().out)["compared_on"] == "5 pictures given"
    assert main([*words, "--out", str(tmp_path / "c.pt2"), "--pictures", "nowhere.jpg"]) == 2
    assert not (tmp_path / "c.pt2").exists()


@pytest.fixture(scope="module")
def full_bits(product: Product, captured: Captured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in OpenVINO's form, which rounding starts from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "capture", lambda *a, **k: captured)
        return export(product, ExportRequest(out=tmp_path_factory.mktemp("full") / "net.xml", format="openvino")).path


CELLS = "synthetic:classes=5,images=60,size=64,seed=0"


def test_eight_bits_are_smaller_measured_and_said_in_the_file(
    product: Product, full_bits: Path, tmp_path: Path, traced_already: None
) -> None:
    named = replace(product, classes=tuple(open_collection(Data(uri=CELLS)).classes))
    request = ExportRequest(out=tmp_path / "net.xml", format="openvino", int8=True, calibration=CELLS, max_drop=100)
    found = export(named, request)
    assert found.path.with_suffix(".bin").stat().st_size < 0.4 * full_bits.with_suffix(".bin").stat().st_size
    opened = open_exported(found.path)
    record = opened.sheet.int8
    assert record is not None
    assert json.loads(found.path.with_suffix(".json").read_text())["int8"] == record.model_dump()
    assert (record.measured_on, record.calibrated_on) == ("test", f"train of {CELLS}")
    # An independent recount of both files on the reported split.
    split = open_collection(Data(uri=CELLS)).split("test")
    assert record.num_images == len(split)
    pixels = torch.stack([evaluation_crop(split.read(i), named.preprocess) for i in range(len(split))])
    inputs = normalise(pixels, named.preprocess.mean, named.preprocess.std).numpy()
    right = [100 * (open_exported(p).outputs(inputs).argmax(1) == split.labels).mean() for p in (full_bits, found.path)]
    assert [record.top1_before, record.top1] == pytest.approx(right)
    full, rounded = (open_exported(path).outputs(inputs) for path in (full_bits, found.path))
    assert 0 < np.abs(full - rounded).max() < 0.2 * np.ptp(full)
    assert found.rounding is not None
    assert found.rounding.difference == pytest.approx(right[1] - right[0])


def test_eight_bits_that_cost_too_much_leave_nothing(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced_already: None
) -> None:
    named = replace(product, classes=tuple(open_collection(Data(uri=CELLS)).classes))
    right = np.ones(100, dtype=bool)
    monkeypatch.setattr(int8, "_correct", lambda *_: [right, np.arange(100) >= 5])
    monkeypatch.setattr(int8, "_rounded", lambda model, *_: model)
    with pytest.raises(
        UserError, match=r"8 bits cost 5\.00 points of top-1 on test .*, allowed 1; nothing was written"
    ):
        export(named, ExportRequest(out=tmp_path / "net.xml", format="openvino", int8=True, calibration=CELLS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "onnx"}, "--int8 writes OpenVINO files, not onnx"),
        ({"calibration": "synthetic:classes=3,images=20"}, "outputs"),
        ({"calibration": None}, "--calibration URI"),
        ({"int8": False}, "--calibration is for 8 bits"),
    ],
)
def test_eight_bits_that_cannot_be_are_refused_before_anything_is_traced(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(engine_module, "capture", lambda *a, **k: pytest.fail("traced"))
    nameless = replace(product, has_names=False)
    request = ExportRequest(out=tmp_path / "net", format="openvino", int8=True, calibration=CELLS)
    with pytest.raises(UserError, match=re.escape(said)):
        export(nameless, replace(request, **changes))
