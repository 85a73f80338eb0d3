"""Names and probabilities for pictures, through the product's own preprocessing."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fixres.data.decode import BadImage, decode
from fixres.data.folder import EXTENSIONS
from fixres.errors import UserError
from fixres.evaluate import predict_logits
from fixres.product import Product
from fixres.runtime import Runtime
from fixres.transforms import evaluation_crop

Picture = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture, best first, or why it could not be read."""

    path: str
    top: tuple[tuple[str, float], ...]
    """(class name, probability)."""
    size: int
    error: str = ""
    said: tuple[str, ...] = ()
    """What people call the classes of `top`; the names themselves where they are words."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of `predict --format json`."""
        fields: dict[str, Any] = {
            "path": self.path,
            "size": self.size,
            "top": [
                {"name": name, **({"description": said} if said != name else {}), "probability": probability}
                for (name, probability), said in zip(self.top, self.said, strict=True)
            ],
        }
        return {**fields, "error": self.error} if self.error else fields


class Predictor:
    """Applies a product to pictures of any kind a user has."""

    def __init__(self, product: Product, runtime: Runtime, top_k: int = 5, batch_size: int = 16) -> None:
        self.product = product
        self.runtime = runtime
        self.model = runtime.place(product.model).eval()
        self.top_k = min(top_k, len(product.classes))
        self.batch_size = batch_size

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Yield one prediction per picture, in order, reading `batch_size` at a time.

        Pictures are paths, bytes of a file, PIL images or uint8 arrays `[H, W, 3]` or `[H, W]`. One that cannot be
        read yields a prediction with `error` set; the rest go on.
        """
        iterator = iter(pictures)
        shape = 0
        while chunk := list(islice(iterator, self.batch_size)):
            # The last batch of many is padded to the shape of the others; a few pictures need not pay for a full one.
            shape = max(shape, len(chunk))
            yield from self._chunk(chunk, shape)

    def _chunk(self, chunk: Sequence[Picture], shape: int) -> list[Prediction]:
        names = [_name(picture) for picture in chunk]
        size = self.product.preprocess.size
        read: list[Tensor] = []
        place: dict[int, int] = {}
        errors: dict[int, str] = {}
        for i, picture in enumerate(chunk):
            try:
                image = open_picture(picture, self.product)
            except UserError as error:
                errors[i] = getattr(error, "reason", str(error)).split("\n")[0]
                continue
            place[i] = len(read)
            read.append(evaluation_crop(image, self.product.preprocess))
        rows = self._probabilities(read, shape) if read else None
        predictions = []
        for i, name in enumerate(names):
            if i in errors or rows is None:
                predictions.append(Prediction(name, (), size, errors.get(i, "")))
                continue
            values, indices = rows[place[i]].sort(descending=True, stable=True)
            best = [int(k) for k in indices[: self.top_k]]
            top = tuple((self.product.classes[k], float(p)) for k, p in zip(best, values[: self.top_k], strict=True))
            predictions.append(Prediction(name, top, size, said=tuple(self.product.spoken(k) for k in best)))
        return predictions

    def _probabilities(self, images: list[Tensor], shape: int) -> Tensor:
        """Return float64 probabilities `[B, C]`."""
        logits = predict_logits(self.model, torch.stack(images), self.product.preprocess, self.runtime, shape)
        return logits.double().softmax(1)


def open_picture(picture: Picture, product: Product) -> Image.Image:
    """Return an RGB picture.

    Raises:
        BadImage: it cannot be read.
        UserError: no such file, or an array that is no picture.
    """
    p = product.preprocess
    if isinstance(picture, bytes):
        return decode(picture, "bytes", p.exif, p.alpha)
    if isinstance(picture, Image.Image):
        # Through the decoder, so that transparency and 16 bits mean what they mean in a file.
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if picture.mode not in ("CMYK", "YCbCr", "LAB", "HSV") else "TIFF")
        return decode(buffer.getvalue(), _name(picture), p.exif, p.alpha)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise UserError(
                f"an array {picture.dtype} {list(picture.shape)} is no picture; give uint8 [H, W] or [H, W, 3]"
            )
        return Image.fromarray(picture).convert("RGB")
    path = Path(picture)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(str(path), (error.strerror or str(error)).lower()) from error
    return decode(data, str(path), p.exif, p.alpha)


def _name(picture: Picture) -> str:
    if isinstance(picture, str | Path):
        return str(picture)
    return getattr(picture, "filename", "") or type(picture).__name__


def find_pictures(arguments: Sequence[str]) -> list[str]:
    """Return the pictures named by files and folders, folders walked in sorted order.

    Raises:
        UserError: a path that does not exist, or a folder without pictures.
    """
    found: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"no pictures in {path}\n  looked for {', '.join(sorted(EXTENSIONS))}")
            found.extend(inside)
        elif path.exists():
            found.append(argument)
        else:
            raise UserError(f"no such file or folder: {argument}")
    return found
