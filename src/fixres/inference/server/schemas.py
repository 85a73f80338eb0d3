"""The answers of the server, as its OpenAPI describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fixres.inference.server.problem_details import MEANINGS, ErrorAnswer

Weights = Literal["fixed", "before_fix"]
"""Which of the product's weights answer: as it is, or as it was before a fix."""
TOP_K = 5
MAX_TOP_K = 1000


class Named(BaseModel):
    """One class and its probability."""

    name: str
    description: str | None = None
    """What people call it, where the name is a code."""
    probability: float


class PredictAnswer(BaseModel):
    """The classes of one picture, best first."""

    size: int
    """Side in pixels of what the network saw."""
    weights: Weights
    top: list[Named]
    explanation: str | None = None
    """Grad-CAM over what the network saw, a PNG as a data URI."""


class FileAnswer(BaseModel):
    """One file of a batch: its classes, or why it has none."""

    file: str
    top: list[Named] = Field(default_factory=list)
    error: dict[str, str] | None = None


class BatchAnswer(BaseModel):
    """The files of a request, in its order."""

    size: int
    weights: Weights
    results: list[FileAnswer]


class ComparedRow(BaseModel):
    """One picture at one size."""

    label: str
    size: int
    weights: Weights
    top: list[Named]
    milliseconds: float
    """From the queue to the answer, with nothing else of this request computed meanwhile."""
    view: str
    """What the network saw, a JPEG as a data URI."""
    explanation: str | None = None
    error: str | None = None


class CompareAnswer(BaseModel):
    """One picture at the train size, the un-fixed test size and the fixed size."""

    rows: list[ComparedRow]
    note: str = ""


class ModelAnswer(BaseModel):
    """What is served."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    architecture: str
    num_classes: int
    classes: list[str]
    size: int
    train_size: int
    resize: str
    resize_size: int
    crop_ratio: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sizes: str
    """Which sizes are answered, in words."""
    weights: list[str]
    backend: str
    checkpoint_sha256: str
    explains: bool
    limits: dict[str, Any]


class PredictOptions(BaseModel):
    """What may be asked beside the picture."""

    model_config = ConfigDict(extra="ignore")

    size: int | None = Field(None, ge=1, le=1_000_000)
    top_k: int = Field(TOP_K, ge=1, le=MAX_TOP_K)
    explain: bool = False
    weights: Weights = "fixed"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's description of the error answers of an endpoint."""
    return {status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in statuses}


_PICTURE = {"type": "string", "format": "binary"}
_FORM_FIELDS: dict[str, Any] = {
    "size": {"type": "integer", "minimum": 1},
    "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
    "explain": {"type": "boolean"},
    "weights": {"type": "string", "enum": ["fixed", "before_fix"]},
}


def one_picture() -> dict[str, Any]:
    """Return the OpenAPI of a body that is a picture, or a form with one."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _PICTURE, **_FORM_FIELDS}}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {kind: {"schema": _PICTURE} for kind in ("image/jpeg", "image/png", "application/octet-stream")}
    return {"requestBody": {"required": True, "content": content}}


def several_pictures() -> dict[str, Any]:
    """Return the OpenAPI of a form with pictures."""
    files = {"type": "array", "items": _PICTURE, "minItems": 1}
    form = {"type": "object", "required": ["files"], "properties": {"files": files, **_FORM_FIELDS}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}
