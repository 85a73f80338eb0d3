"""Where a network looks: Grad-CAM (Selvaraju et al. 2017) through captum, on maps `[B, C, h, w]` and on tokens.

captum averages over the dimensions after the second, which for tokens `[B, N, C]` would be the channels: the answer
would have a shape and no meaning. So the layer's output passes through a layer of ours as a map, whatever it was.

The layer is found by what it is: the last one whose output has places and whose places the score depends on. After the
last block of a transformer with a class token that is the block's first norm: later places reach no output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.data.transforms import evaluation_crop, normalise
from fixres.data.unlabelled import Picture, open_picture
from fixres.errors import UserError, require_extra
from fixres.models.sizes import evaluation_mode
from fixres.runtime.device import Runtime

_CELL = 256
"""Side in pixels of one picture of an overlay."""
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
"""Colours from cold to hot; brightness rises with heat, so it also reads in grey."""
_OPACITY = 0.7


@dataclass(frozen=True)
class Layer:
    """A layer whose output has places, and how these lie in it."""

    name: str
    layout: Literal["NCHW", "NHWC", "tokens"]
    num_prefix: int = 0
    """Tokens in front of those that have a place: class and register tokens."""

    def to_map(self, output: Tensor) -> Tensor:
        """Return the output as `[B, C, h, w]`."""
        if self.layout == "NCHW":
            return output
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.num_prefix :]
        side = math.isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)

    def from_map(self, seen: Tensor, output: Tensor) -> Tensor:
        """Return the map in the shape of the output it came from."""
        if self.layout == "NCHW":
            return seen
        if self.layout == "NHWC":
            return seen.permute(0, 2, 3, 1)
        return torch.cat([output[:, : self.num_prefix], seen.flatten(2).transpose(1, 2)], dim=1)


def grad_cam(
    model: nn.Module, images: Tensor, targets: Sequence[int], layer: Layer | None = None
) -> tuple[Tensor, Layer]:
    """Return float32 heat `[B, S, S]` from 0 to 1 (the hottest place of each picture), and the layer it is of.

    Args:
        model: a network; its mode is restored afterwards.
        images: normalised float32 `[B, 3, S, S]`, on the model's device.
        targets: a class for each picture.
        layer: found with the first picture when left out.

    Raises:
        UserError: captum is not installed, or no layer with places reaches the score.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise require_extra("captum", "explain") from None
    with evaluation_mode(model), torch.enable_grad():
        images = images.detach().clone().requires_grad_(True)
        layer = layer or find_layer(model, images[:1], targets[0])
        seen = nn.Identity()
        with _seen_as_map(model, layer, seen):
            found = LayerGradCam(model, seen).attribute(images, target=list(targets), relu_attributions=True)
    assert isinstance(found, Tensor)
    heat = nn.functional.interpolate(found.detach().float(), size=images.shape[2:], mode="bilinear")[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny), layer


@contextmanager
def _seen_as_map(model: nn.Module, layer: Layer, seen: nn.Module) -> Iterator[None]:
    def redirect(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # Copies: what follows may work in place, and captum keeps what passed `seen`.
        return layer.from_map(seen(layer.to_map(output).clone()).clone(), output)

    hook = model.get_submodule(layer.name).register_forward_hook(redirect)
    try:
        yield
    finally:
        hook.remove()


def find_layer(model: nn.Module, image: Tensor, target: int) -> Layer:
    """Return the last layer whose output has places on which the score of class `target` depends.

    Args:
        model: in evaluation mode, with gradients enabled.
        image: normalised `[1, 3, S, S]` that requires a gradient.
        target: the class.

    Raises:
        UserError: there is none.
    """
    outputs: dict[str, tuple[Layer, Tensor]] = {}
    hooks = []

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            layer = _layer(model, name, output)
            if layer is not None and output.requires_grad:
                # A module that runs twice counts where it ran last.
                outputs.pop(name, None)
                outputs[name] = layer, output

        return hook

    inside: list[str] = []
    for name, module in model.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        # Inside of attention the same shapes mean other things: heads, queries, keys.
        if "Attention" in type(module).__name__ or "Attn" in type(module).__name__:
            inside.append(name)
        hooks.append(module.register_forward_hook(remember(name)))
    try:
        score = model(image)[0, target]
    finally:
        for hook in hooks:
            hook.remove()
    tensors = [output for _, output in outputs.values()]
    gradients = torch.autograd.grad(score, tensors, allow_unused=True) if tensors else ()
    for (layer, _), gradient in reversed(list(zip(outputs.values(), gradients, strict=True))):
        if gradient is not None and bool(layer.to_map(gradient).any()):
            return layer
    raise UserError("this network has no layer with places that its score depends on\n  leave --explain out")


def _layer(model: nn.Module, name: str, output: Any) -> Layer | None:
    """Return how places lie in an output, or None where it has none."""
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        return None
    if output.dim() == 4:
        _, a, b, c = output.shape
        is_last = b == c > 1 and not (a == b == c and getattr(model, "output_fmt", "NCHW") == "NHWC")
        if is_last:
            return Layer(name, "NCHW")
        return Layer(name, "NHWC") if a == b > 1 else None
    stated = getattr(model, "num_prefix_tokens", None)
    for num_prefix in (0, 1, 2) if stated is None else (int(stated),):
        num = output.shape[1] - num_prefix
        if num > 1 and math.isqrt(num) ** 2 == num:
            return Layer(name, "tokens", num_prefix)
    return None


Sight = tuple[str, Product]
"""What a size is, and a network at it."""


def sights(product: Product, as_trained: Product | None = None) -> tuple[Sight, ...]:
    """Return the product at its train and at its test size, one sight where these are equal.

    Args:
        product: at the test size.
        as_trained: the network as it was before its fix, for the train size.
    """
    p = product.preprocess
    test = (f"test size, {p.size} px", product)
    if product.train_size == p.size:
        return (test,)
    trained = as_trained or product
    words = ", before the fix" if as_trained is not None else ""
    return (f"train size, {product.train_size} px{words}", trained.at(product.train_size)), test


class Explainer:
    """Draws where a network looks, at several sizes side by side."""

    def __init__(self, seen: Sequence[Sight], runtime: Runtime) -> None:
        """Place the networks."""
        self.sights = seen
        self.runtime = runtime
        self._networks = [runtime.place(product.model) for _, product in seen]
        self._layers: list[Layer | None] = [None] * len(seen)

    def __call__(self, picture: Picture, target: int) -> Image.Image:
        """Return a column per size: title, probability of class `target`, what the network sees, and the heat over it.

        Raises:
            UserError: the picture cannot be read, or captum is not installed.
        """
        columns = []
        for place, ((title, product), network) in enumerate(zip(self.sights, self._networks, strict=True)):
            p = product.preprocess
            crop = evaluation_crop(open_picture(picture, p), p)
            images = normalise(self.runtime.images(crop[None]), p.mean, p.std)
            heat, self._layers[place] = grad_cam(network, images, [target], self._layers[place])
            with torch.inference_mode(), evaluation_mode(network):
                share = float(network(images).double().softmax(1)[0, target])
            said = f"{product.spoken(target)}: {100 * share:.1f} %"
            pixels = crop.permute(1, 2, 0).numpy()
            columns.append(_column((title, said), pixels, heat[0].cpu().numpy()))
        return _side_by_side(columns)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return heat `[S, S]` from 0 to 1 laid over a picture uint8 `[S, S, 3]`; where it is 0 the picture stays."""
    place = heat.astype(np.float64)[..., None].clip(0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(place[..., 0], steps, channel) for channel in _HEAT.T], axis=-1)
    share = _OPACITY * place
    blended: np.ndarray = np.rint(pixels * (1 - share) + colours * share).astype(np.uint8)
    return blended


def _column(words: Sequence[str], pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    font = ImageFont.load_default(size=14)
    head = 20 * len(words) + 4
    column = Image.new("RGB", (_CELL, head + 2 * _CELL + 8), "white")
    draw = ImageDraw.Draw(column)
    for line, text in enumerate(words):
        draw.text((0, 20 * line), _fitting(text, font), fill="black", font=font)
    for row, picture in enumerate((pixels, overlay(pixels, heat))):
        # Small crops are shown with the pixels they have.
        how = Image.Resampling.NEAREST if len(picture) <= _CELL else Image.Resampling.LANCZOS
        shown = Image.fromarray(picture).resize((_CELL, _CELL), how)
        column.paste(shown, (0, head + row * (_CELL + 8)))
    return column


def _fitting(text: str, font: Any) -> str:
    if font.getlength(text) <= _CELL:
        return text
    while text and font.getlength(text + "...") > _CELL:
        text = text[:-1]
    return text + "..."


def _side_by_side(columns: Sequence[Image.Image]) -> Image.Image:
    gap = 12
    page = Image.new("RGB", (len(columns) * (_CELL + gap) + gap, columns[0].height + 2 * gap), "white")
    for place, column in enumerate(columns):
        page.paste(column, (gap + place * (_CELL + gap), gap))
    return page
