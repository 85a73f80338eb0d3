"""config.json as it must be before anything is built from it: foreign folders may hold any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fixres.errors import UserError
from fixres.models.sizes import MAX_SIZE
from fixres.resolution import Alpha, Exif, Resize

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Ratio = Annotated[float, Field(ge=0.1, le=1)]
Unit = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=10)]
Label = Annotated[str, Field(min_length=1, max_length=1000)]
MAX_CLASSES = 1_000_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Pretrained(_Part):
    """timm's keys that say how the network is fed."""

    input_size: tuple[int, Size, Size]
    test_input_size: tuple[int, Size, Size] | None = None
    crop_pct: Ratio | None = None
    test_crop_pct: Ratio | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    mean: tuple[Unit, Unit, Unit] = (0.485, 0.456, 0.406)
    std: tuple[Spread, Spread, Spread] = (0.229, 0.224, 0.225)
    tag: str | None = None
    num_classes: int | None = None
    label_names: list[Label] | None = None
    label_descriptions: dict[str, str] | None = None

    @field_validator("input_size", "test_input_size")
    @classmethod
    def _require_square(cls, size: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if size is not None and (size[0] != 3 or size[1] != size[2]):
            raise ValueError(f"{list(size)} is no square of three channels, which is all that can be used here")
        return size


class SizeEntry(_Part):
    """One further size of ours."""

    file: Annotated[str, Field(pattern=r"^sizes/[0-9]+\.safetensors$")]


class Own(_Part):
    """Our own key."""

    sizes: dict[Size, SizeEntry] = Field(default_factory=dict)

    crop_ratio: Ratio | None = None
    resize: Resize | None = None
    exif: Exif = "apply"
    alpha: Alpha = "white"
    exact: bool = False
    weights: str = "raw"
    before_fix: str | None = None
    before_fix_size: Size | None = None

    @field_validator("before_fix")
    @classmethod
    def _require_plain_name(cls, name: str | None) -> str | None:
        if name is not None and Path(name).name != name:
            raise ValueError("must be the name of a file in the same folder")
        return name


class FolderConfig(_Part):
    """What is read of config.json."""

    architecture: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+$")]
    num_classes: Annotated[int, Field(ge=0, le=MAX_CLASSES)] | None = None
    label_names: list[Label] | None = None
    label_descriptions: dict[str, str] | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    pretrained_cfg: Pretrained
    fixres: Own = Own()

    @model_validator(mode="after")
    def _require_as_many_names(self) -> FolderConfig:
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} label_names for {self.classes} classes")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("label_names names a class twice")
        return self

    @property
    def classes(self) -> int:
        """Number of outputs of the network."""
        stated = self.num_classes if self.num_classes is not None else self.pretrained_cfg.num_classes
        return 1000 if stated is None else stated

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, empty when none are stated."""
        return tuple(self.label_names or self.pretrained_cfg.label_names or ())

    @property
    def descriptions(self) -> dict[str, str]:
        """What the names mean, where that is stated."""
        return self.label_descriptions or self.pretrained_cfg.label_descriptions or {}


def read_config(path: Path) -> tuple[FolderConfig, dict[str, Any]]:
    """Return the checked content of config.json, and all that is under its "fixres" key as it stands.

    Raises:
        UserError: it cannot be read, or says something impossible.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "pretrained_cfg" not in content and "input_size" in content:
            # timm's first form had everything on one level.
            content = {key: content.get(key) for key in ("architecture", "num_classes")} | {"pretrained_cfg": content}
        checked = FolderConfig.model_validate(content)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()[:4]
        )
        raise UserError(f"{path} is damaged or not a timm model folder ({where})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or not a timm model folder ({error})") from None
    return checked, content.get("fixres", {})
