"""The runner beside an ONNX file, where there is no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fixres.checkpoints.product import Product
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.inference.export.export import export
from fixres.inference.predict import Predictor
from fixres.inference.requests import ExportRequest
from fixres.runtime.device import Runtime

SUBPROCESS_ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def probabilities(product: Product, paths: list[Path]) -> np.ndarray:
    predictor = Predictor(product, Runtime(RuntimeSettings(device="cpu", threads=1)), len(product.classes))
    rows = [dict(found.top) for found in predictor(paths)]
    return np.array([[row[name] for name in product.classes] for row in rows])


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


def test_an_openvino_file_has_the_same_runner_which_computes_in_32_bits(
    product: Product, odd_pictures: list[Path], tmp_path: Path, traced_already: None
) -> None:
    found = export(product, ExportRequest(out=tmp_path / "net.xml", format="openvino"))
    assert len(found.ordinary) == len(found.agreement)
    runner = tmp_path / "run_openvino.py"
    assert runner in found.files
    command = [sys.executable, "-c", NO_TORCH, str(runner), str(tmp_path / "net.xml"), "--json", *odd_pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=SUBPROCESS_ENV)
    assert done.returncode == 0, done.stderr
    rows = np.array([json.loads(line)["probabilities"] for line in done.stdout.splitlines()])
    assert np.abs(rows - probabilities(product, odd_pictures)).max() < 2e-4


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
