"""Classify pictures with an exported file: numpy, Pillow and onnxruntime or openvino, nothing else.

    python run_onnx.py model.onnx PICTURE... [--size N] [--top-k 5] [--json]
    python run_openvino.py model.xml PICTURE... [--size N] [--top-k 5] [--json]

Both are this program. Everything about the input is read from the file itself. Copy this program and the model wherever
they are needed, or import it: `Classifier("model.onnx")(["photo.jpg"])` gives float64 probabilities [N, classes]. In
place of model.onnx, the folder of an exported cascade: its smaller size sees every picture, the larger those that
cascade.json sends on.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 178_956_970
"""Larger pictures are refused; Pillow's own limit is the same."""
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RULE = "cascade.json"
LONGEST_STRIP = 100
"""Longer side over shorter, beyond which only the middle of a picture is resized."""


class Classifier:
    """An exported model with its preprocessing."""

    def __init__(self, path: str) -> None:
        text, self.run = opened_by_openvino(path) if path.endswith(".xml") else opened_by_onnxruntime(path)
        if not text:
            raise ValueError(f"{path} was not written by `fixres export`")
        self.sheet: dict[str, Any] = json.loads(text)

    def __call__(self, paths: Sequence[str], size: int | None = None) -> np.ndarray:
        """Return float64 probabilities [N, classes] of picture files, at `size` pixels or the model's test size.

        Raises:
            ValueError: the model does not accept the size, or a picture cannot be used.
        """
        size = size or self.sheet["size"]
        self.require_size(size)
        rows = []
        for path in paths:
            pixels = np.asarray(view(picture(path, self.sheet), size, self.sheet))
            images = self.inputs(pixels)[None]
            rows.append(self.run(images)[0])
        outputs = np.asarray(rows, dtype=np.float64).reshape(-1, len(self.sheet["classes"]))
        if self.sheet["output"] == "probabilities":
            return outputs
        exponents = np.exp(outputs - outputs.max(1, keepdims=True))
        result: np.ndarray = exponents / exponents.sum(1, keepdims=True)
        return result

    def require_size(self, size: int) -> None:
        """Raise ValueError for a size the model does not accept."""
        rule = self.sheet["sizes"]
        if rule.get("fixed") is not None:
            if size != rule["fixed"]:
                raise ValueError(f"size {size}: this model takes {rule['fixed']} only")
        elif size % rule["step"] or not rule["smallest"] <= size <= rule["largest"]:
            raise ValueError(
                f"size {size}: this model takes multiples of {rule['step']} from {rule['smallest']} to "
                f"{rule['largest']}"
            )

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 [3, size, size] of uint8 [size, size, 3], in the range the model wants."""
        values = pixels.astype(np.float32)
        if not self.sheet["normalised_inside"]:
            mean, std = (np.asarray(self.sheet[name], dtype=np.float64) for name in ("mean", "std"))
            values = values * (1 / (255 * std)).astype(np.float32) - (mean / std).astype(np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def opened_by_onnxruntime(path: str) -> tuple[str | None, Callable[[np.ndarray], np.ndarray]]:
    """Return the sheet inside an ONNX file, and what computes float32 [B, 3, H, W]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return session.get_modelmeta().custom_metadata_map.get("fixres"), lambda images: session.run(None, {name: images})[
        0
    ]


def opened_by_openvino(path: str) -> tuple[str | None, Callable[[np.ndarray], np.ndarray]]:
    """Return the sheet inside an OpenVINO file, and what computes float32 [B, 3, H, W]."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    text = model.get_rt_info("fixres").astype(str) if model.has_rt_info("fixres") else None
    # Without it, OpenVINO computes in bf16 where the processor can.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return text, lambda images: np.array(compiled({0: images})[0])


class Cascade:
    """Two exported models in turn, as the cascade.json of their folder says."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, RULE), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - a path is text here
            self.rule: dict[str, Any] = json.load(file)
        self.small, self.large = (Classifier(os.path.join(folder, name)) for name in self.rule["files"])  # noqa: PTH118
        self.sheet = self.large.sheet

    def __call__(self, paths: Sequence[str], size: int | None = None) -> np.ndarray:
        """Return float64 probabilities [N, classes] of picture files.

        Raises:
            ValueError: a size is given, or a picture cannot be used.
        """
        self.require_size(size or self.sheet["size"])
        rows = []
        for path in paths:
            row = self.small([path])[0]
            if self.goes_on(row):
                share = self.rule["small_weight"]
                row = share * row + (1 - share) * self.large([path])[0]
            rows.append(row)
        return np.asarray(rows).reshape(-1, len(self.sheet["classes"]))

    def require_size(self, size: int) -> None:
        """Raise ValueError for a size: there are two."""
        if size != self.sheet["size"]:
            raise ValueError(f"size {size}: a cascade has sizes of its own, {self.rule['sizes']}")

    def goes_on(self, row: np.ndarray) -> bool:
        """Return whether the larger size is asked, by the probabilities [classes] at the smaller."""
        if self.rule["by"] == "confidence":
            return bool(row.max() < self.rule["threshold"])
        best = np.sort(row)[-2:]
        entropy = -(row * np.log(np.maximum(row, 1e-300))).sum() / max(math.log(len(row)), 1e-9)
        inputs = np.array([best[-1], best[-1] - (best[0] if len(row) > 1 else 0.0), entropy])
        outcome = np.asarray(self.rule["weight"]) @ inputs + np.asarray(self.rule["bias"])
        shares = np.exp(outcome - outcome.max())
        gain = (shares[2] - shares[0]) / shares.sum()
        return bool(gain > self.rule["threshold"])


def picture(path: str, sheet: dict[str, Any]) -> Image.Image:
    """Return the RGB picture of a file; of a PNG whose texts or profiles Pillow refuses, the pixels all the same."""
    with open(path, "rb") as file:  # noqa: PTH123 - a path is text here
        data = file.read()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return to_rgb(opened, sheet)
    except Exception:
        # Whatever Pillow's parsers raise; it stands where there is no metadata to blame.
        reduced = without_metadata(data)
        if len(reduced) == len(data):
            raise
        with Image.open(io.BytesIO(reduced)) as opened:
            image = to_rgb(opened, sheet)
        sys.stderr.write(f"{path}: decoded without its metadata, which cannot be read\n")
        return image


def without_metadata(data: bytes) -> bytes:
    """Return a PNG with the chunks alone that make its pixels and say which side is up; anything else as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"):
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def to_rgb(image: Image.Image, sheet: dict[str, Any]) -> Image.Image:
    """Return an upright RGB picture: 16-bit grey scaled by 1 / 257, transparency over white, first frame."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
    image.load()
    upright = turned(image) if sheet["exif"] == "apply" else image
    over_white = sheet["alpha"] == "white"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.asarray(upright).astype(np.int64)
        scaled = (np.clip(grey, 0, 65535) + 128) // 257
        transparent = image.info.get("transparency")
        if over_white and isinstance(transparent, int):
            scaled[grey == transparent] = 255
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel have no defined white: save it with 8 or 16")
    if over_white and upright.has_transparency_data:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    upright.info.pop("transparency", None)
    return upright.convert("RGB")


def turned(image: Image.Image) -> Image.Image:
    """Return the picture upright; as it is where its tags cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged tags do not make the picture unreadable
        return image


def view(image: Image.Image, size: int, sheet: dict[str, Any]) -> Image.Image:
    """Return the square the network sees."""
    resample, resize = RESAMPLE[sheet["interpolation"]], sheet["resize"]
    if resize == "squash":
        return image if image.size == (size, size) else image.resize((size, size), resample)
    if resize == "pad":
        return letterbox(image, size, sheet)
    side = math.floor(size / sheet["crop_ratio"] + 1e-9)
    width, height = resized(image, side, resize)
    if resize == "height" or sheet["exact"] or width >= image.width:
        limit = LONGEST_STRIP * min(image.size)
        if max(image.size) > limit:
            left, top = (image.width - min(image.width, limit)) // 2, (image.height - min(image.height, limit)) // 2
            image = image.crop((left, top, left + min(image.width, limit), top + min(image.height, limit)))
            width, height = resized(image, side, resize)
        image = image if image.size == (width, height) else image.resize((width, height), resample)
        left, top = offset(width, size), offset(height, size)
        return image.crop((left, top, left + size, top + size))
    # Crop and resize in one call, which reads only what the crop shows.
    left, top = round((width - size) / 2), round((height - size) / 2)
    scale_x, scale_y = image.width / width, image.height / height
    right, bottom = min((left + size) * scale_x, image.width), min((top + size) * scale_y, image.height)
    return image.resize((size, size), resample, box=(left * scale_x, top * scale_y, right, bottom))


def resized(image: Image.Image, side: int, resize: str) -> tuple[int, int]:
    """Return width and height before the crop."""
    width, height = image.size
    if resize == "height" or width > height:
        return max(1, int(side * width / height)), side
    return side, int(side * height / width)


def offset(length: int, size: int) -> int:
    """Return where the centre crop starts; negative where black is added."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def letterbox(image: Image.Image, size: int, sheet: dict[str, Any]) -> Image.Image:
    """Return the whole picture on a square of the mean colour."""
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    red, green, blue = (round(255 * value) for value in sheet["mean"])
    square = Image.new("RGB", (size, size), (red, green, blue))
    small = image.resize((width, height), RESAMPLE[sheet["interpolation"]])
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return square


def main(words: Sequence[str] | None = None) -> int:
    """Classify the pictures named on the command line; 1 when one cannot be used."""
    parser = argparse.ArgumentParser(description="Classify pictures with an exported file.")
    parser.add_argument("model", help="an exported file, or the folder of an exported cascade")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--size", type=int, help="pixels; the model's test size when left out")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object per line, with every probability")
    flags = parser.parse_args(words)
    try:
        kind = Cascade if os.path.isdir(flags.model) else Classifier  # noqa: PTH112 - a path is text here
        classifier = kind(flags.model)
        classifier.require_size(flags.size or classifier.sheet["size"])
    except Exception as error:  # noqa: BLE001 - both engines have exceptions of their own for every kind of damage
        sys.stderr.write(f"{flags.model}: {error}\n")
        return 1
    classes = classifier.sheet["classes"]
    failed = 0
    for path in flags.pictures:
        try:
            row = classifier([path], flags.size)[0]
        except Exception as error:  # noqa: BLE001 - a damaged picture makes Pillow raise whatever it trips over
            sys.stderr.write(f"{path}: {error}\n")
            failed = 1
            continue
        if flags.json:
            sys.stdout.write(json.dumps({"path": path, "probabilities": row.tolist()}) + "\n")
            continue
        best = np.argsort(-row, kind="stable")[: flags.top_k]
        said = [classifier.sheet.get("descriptions", {}).get(classes[k], classes[k]) for k in best]
        lines = [f"  {name:<60} ({100 * row[k]:5.2f} %)" for name, k in zip(said, best, strict=True)]
        sys.stdout.write("\n".join([path, *lines]) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
