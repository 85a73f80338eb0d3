"""What an exported file says about itself, inside it and in the JSON beside it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fixres.checkpoints.product import Product
from fixres.errors import UserError, fixres_version
from fixres.inference.requests import ExportRequest
from fixres.models.sizes import MAX_SIZE
from fixres.resolution import Alpha, Exif, Interpolation, Preprocess, Resize

if TYPE_CHECKING:
    from fixres.inference.export.formats.export_format import ExportFormat

KEY = "fixres"
"""Under this name the sheet is stored in ONNX's metadata and OpenVINO's rt_info."""
MAX_BATCH = 4096

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Unit = Annotated[float, Field(ge=0, le=1)]


class Sizes(BaseModel):
    """The inputs a file accepts: any multiple of `step` from `smallest` on, or one size only."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fixed: Size | None = None
    step: Size = 1
    smallest: Size = 1
    largest: Size = MAX_SIZE

    def accept(self, height: int, width: int) -> bool:
        """Return whether the file takes `[B, 3, height, width]`."""
        if self.fixed is not None:
            return height == width == self.fixed
        return all(self.smallest <= side <= self.largest and side % self.step == 0 for side in (height, width))

    def describe(self) -> str:
        """Return the rule in words."""
        if self.fixed is not None:
            return f"{self.fixed} x {self.fixed} only"
        rule = "any height and width" if self.step == 1 else f"heights and widths that are multiples of {self.step}"
        return f"{rule} from {self.smallest}"


class EightBit(BaseModel):
    """How a file was rounded to 8 bits, and what it cost."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    calibrated_on: str
    num_calibration: int
    measured_on: str
    num_images: int
    top1_before: float
    """Percent, of the file in 32 bits."""
    top1: float
    """Percent, of this one."""


class ExportSheet(BaseModel):
    """The content of the JSON: how to feed the file, and what its outputs mean."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    fixres: str
    """Version that wrote the file."""
    format: str
    architecture: str
    classes: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...]
    descriptions: dict[str, str] = Field(default_factory=dict)
    size: Size
    """Test size in pixels: what the file is meant to be used at."""
    train_size: Size
    resize_size: int
    crop_ratio: Annotated[float, Field(ge=0.1, le=1)]
    resize: Resize
    interpolation: Interpolation
    exact: bool
    exif: Exif
    alpha: Alpha
    channels: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"
    mean: tuple[Unit, Unit, Unit]
    std: tuple[float, float, float]
    value_range: tuple[float, float]
    """What the file wants: [0, 255], mean and std are applied inside; [0, 1], the caller applies them."""
    normalised_inside: bool
    output: Literal["logits", "probabilities"]
    sizes: Sizes
    opset: int | None = None
    checkpoint: str
    """Name of what was exported."""
    checkpoint_sha256: str
    weights: str
    int8: EightBit | None = None
    """None: the file computes in 32 bits."""

    @model_validator(mode="after")
    def _require_plausible(self) -> ExportSheet:
        if not self.classes:
            raise ValueError("it names no classes")
        if any(not 0 < s <= 10 for s in self.std):
            raise ValueError("std must be positive")
        return self

    @property
    def preprocess(self) -> Preprocess:
        """How a picture becomes the file's input."""
        return Preprocess(**{entry.name: getattr(self, entry.name) for entry in fields(Preprocess)})

    def text(self) -> str:
        """Return the JSON."""
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"


def read_sheet(text: str | None, path: Path) -> ExportSheet:
    """Return the sheet found in a file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not text:
        raise UserError(f"{path} was not written by `fixres export`: it does not say how it wants to be fed")
    try:
        return ExportSheet.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its sheet"
        raise UserError(f"{path} is damaged ({where}: {first['msg']})") from None


def make_sheet(product: Product, kind: ExportFormat, sizes: Sizes, request: ExportRequest) -> ExportSheet:
    """Return the sheet of a product at its test size."""
    return ExportSheet(
        fixres=fixres_version(),
        format=kind.name,
        architecture=product.architecture,
        classes=product.classes,
        descriptions={name: said for name, said in product.descriptions.items() if name in set(product.classes)},
        train_size=product.train_size,
        resize_size=product.preprocess.resize_size,
        **asdict(product.preprocess),
        value_range=(0, 255) if request.normalise else (0, 1),
        normalised_inside=request.normalise,
        output="probabilities" if request.softmax else "logits",
        sizes=sizes,
        opset=kind.opset,
        checkpoint=_name_of(product),
        checkpoint_sha256=checkpoint_hash(product),
        weights=product.weights,
    )


def _name_of(product: Product) -> str:
    """Return the source without the folders of this machine."""
    source = Path(product.source)
    if not source.is_absolute():
        return product.source
    return "/".join(source.parts[-2:]) if source.name == "model" else source.name


def checkpoint_hash(product: Product) -> str:
    """Return the SHA-256 of the weights file, where the product is a folder of one, else of its tensors in order.

    Heads of further sizes are part of it.
    """
    path = Path(product.source) / "model.safetensors"
    digest = hashlib.sha256()
    if path.is_file() and product.heads:
        for part in sorted([path, *path.parent.glob("sizes/*.safetensors")]):
            digest.update(part.read_bytes())
        return digest.hexdigest()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    for name, tensor in sorted(product.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
