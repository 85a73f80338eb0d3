"""The answers of the server, as its OpenAPI describes them, and its errors: a status, a code and a sentence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

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
    degraded: bool | None = None
    """Whether the size is a smaller one because the server was busy."""
    top: list[Named]
    set: list[str] | None = None
    """The classes promised to hold the right one, best first, where `coverage` was asked for."""
    unsure: bool | None = None
    """Whether the answer is among those that `abstain` does not vouch for."""
    explanation: str | None = None
    """Grad-CAM over what the network saw, a JPEG as a data URI."""


class FileAnswer(BaseModel):
    """One file of a batch: its classes, or why it has none."""

    file: str
    top: list[Named] = Field(default_factory=list)
    set: list[str] | None = None
    unsure: bool | None = None
    error: dict[str, str] | None = None


class BatchAnswer(BaseModel):
    """The files of a request, in its order."""

    size: int
    weights: Weights
    degraded: bool | None = None
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

    size: int | None = Field(None, ge=1, le=1_000_000)
    top_k: int = Field(TOP_K, ge=1, le=MAX_TOP_K)
    explain: bool = False
    weights: Weights = "fixed"
    coverage: float | None = None
    """Share of pictures whose set holds the right class: 0.8, 0.9, 0.95 or 0.99."""
    abstain: float | None = None
    """Share of wrong answers that is vouched for: 0.01, 0.02, 0.05 or 0.1."""


class Problem(Exception):  # noqa: N818 - an answer, not a failure of the server
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str, retry_seconds: int | None = None) -> None:
        self.status, self.code, self.message = status, code, message
        self.retry_seconds = retry_seconds
        super().__init__(message)

    def response(self, **headers: str) -> JSONResponse:
        """Return the answer with the headers that belong to it, and more."""
        headers |= {"Retry-After": str(self.retry_seconds)} if self.retry_seconds is not None else {}
        headers |= {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return JSONResponse({"error": {"code": self.code, "message": self.message}}, self.status, headers)


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    """For programs: bad_parameter, bad_picture, busy, ..."""
    message: str
    """For people."""


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


MEANINGS = {
    400: "The request cannot be read, or the file is empty.",
    401: "The server wants a token: Authorization: Bearer TOKEN.",
    403: "A page of another site asks, which --allow-origin did not name.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    408: "The request did not arrive in time.",
    413: "Too many bytes, pixels or files.",
    415: "Not a picture, or a content type that holds none.",
    421: "The server does not answer to this host name.",
    422: "A parameter is out of range, or the picture is damaged.",
    500: "A bug; the server's log has more.",
    501: "These answers cannot be explained: an exported file, or captum is missing.",
    503: "The queue is full, or the server is stopping: try again after Retry-After seconds.",
}
"""Every status other than 200."""


def busy(message: str = "the queue is full") -> Problem:
    """Return the answer of a server that has too much to do."""
    return Problem(503, "busy", f"{message}; try again in a second", retry_seconds=1)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's description of the error answers of an endpoint."""
    return {status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in statuses}


_PICTURE = {"type": "string", "format": "binary"}
_FORM_FIELDS: dict[str, Any] = {
    "size": {"type": "integer", "minimum": 1},
    "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
    "explain": {"type": "boolean"},
    "weights": {"type": "string", "enum": ["fixed", "before_fix"]},
    "coverage": {"type": "number"},
    "abstain": {"type": "number"},
}


def _body(name: str, schema: dict[str, Any], *kinds: str) -> dict[str, Any]:
    form = {"type": "object", "required": [name], "properties": {name: schema, **_FORM_FIELDS}}
    content = {"multipart/form-data": {"schema": form}, **{kind: {"schema": _PICTURE} for kind in kinds}}
    return {"requestBody": {"required": True, "content": content}}


ONE_PICTURE = _body("file", _PICTURE, "image/jpeg", "image/png", "application/octet-stream")
"""The OpenAPI of a body that is a picture, or a form with one."""
SEVERAL_PICTURES = _body("files", {"type": "array", "items": _PICTURE, "minItems": 1})
"""The OpenAPI of a form with pictures."""
