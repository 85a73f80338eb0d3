"""Where a served network looks: Grad-CAM of the likeliest class over what the network saw."""

from __future__ import annotations

import torch
from torch import Tensor

from fixres.checkpoints.product import Product
from fixres.data.transforms import normalise
from fixres.errors import UserError
from fixres.inference.grad_cam import Layer, grad_cam, overlay
from fixres.inference.server.network import Network
from fixres.inference.server.problem_details import Problem
from fixres.inference.server.schemas import Weights


class Sight:
    """Explains a network's answers, where PyTorch's network is at hand."""

    def __init__(self, network: Network) -> None:
        self._products = network.products
        self._layers: dict[Weights, Layer] = {}

    @property
    def is_possible(self) -> bool:
        """Whether there is a network to look into; an exported file is none."""
        return bool(self._products)

    def require(self) -> None:
        """Raise Problem where answers cannot be explained."""
        if not self.is_possible:
            raise Problem(501, "cannot_explain", "an exported file cannot be explained; serve the checkpoint")

    def __call__(self, pixels: Tensor, target: int, weights: Weights) -> Tensor:
        """Return heat of class `target` laid over uint8 `[3, S, S]`, in the same form.

        The network's layers are listened to meanwhile: nothing else may use it.

        Raises:
            Problem: captum is not installed, or the network has no layer with places.
        """
        product: Product = self._products[weights].at(pixels.shape[-1])
        p = product.preprocess
        images = normalise(pixels[None], p.mean, p.std).to(next(product.model.parameters()).device)
        try:
            heat, self._layers[weights] = grad_cam(product.model, images, [target], self._layers.get(weights))
        except UserError as error:
            raise Problem(501, "cannot_explain", str(error).split("\n")[0]) from None
        drawn = overlay(pixels.permute(1, 2, 0).numpy(), heat[0].cpu().numpy())
        return torch.from_numpy(drawn).permute(2, 0, 1)
