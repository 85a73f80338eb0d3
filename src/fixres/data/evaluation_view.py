"""The part of a picture that the network sees at test time. Nothing here needs torch, so small processes can do it.

One Pillow call crops and resizes together, within one grey level of torchvision's `Resize` followed by `CenterCrop`
(99.9 % of the values); `exact` does the two steps and is equal bit for bit.
"""

from __future__ import annotations

from PIL import Image

from fixres.resolution import Preprocess

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LONGEST_STRIP = 100


def evaluation_view(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Return the square of an RGB picture that the network sees, RGB, `preprocess.size` pixels a side."""
    size = preprocess.size
    resample = RESAMPLE[preprocess.interpolation]
    if preprocess.resize == "squash":
        return image if image.size == (size, size) else image.resize((size, size), resample)
    if preprocess.resize == "pad":
        return _letterbox(image, preprocess)
    width, height = _resized(image, preprocess)
    # Enlarging saves nothing in one call, and its rounding would differ by 2 levels here and there.
    if preprocess.resize == "height" or preprocess.exact or width >= image.width:
        return center_crop(resize(image, preprocess), size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    scale_x, scale_y = image.width / width, image.height / height
    # Rounding may put the far edge a hair outside the picture, which Pillow refuses.
    right, bottom = min((left + size) * scale_x, image.width), min((top + size) * scale_y, image.height)
    return image.resize((size, size), resample, box=(left * scale_x, top * scale_y, right, bottom))


def _resized(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    """Return width and height in pixels before the crop, truncated like torchvision's `Resize`."""
    width, height, side = image.width, image.height, preprocess.resize_size
    if preprocess.resize == "height" or width > height:
        return max(1, int(side * width / height)), side
    return side, int(side * height / width)


def resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Return the picture as it is before its centre is cropped."""
    image = without_far_ends(image)
    size = _resized(image, preprocess)
    return image if size == image.size else image.resize(size, RESAMPLE[preprocess.interpolation])


def without_far_ends(image: Image.Image) -> Image.Image:
    """Cut a strip to its middle: resizing all of a 30,000 x 1 picture by its short side would take gigabytes."""
    limit = _LONGEST_STRIP * min(image.size)
    if max(image.size) <= limit:
        return image
    width, height = min(image.width, limit), min(image.height, limit)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the centre like torchvision's `CenterCrop`: a side that is too short is padded with black first."""
    left, top = center_offset(image.width, size), center_offset(image.height, size)
    return image.crop((left, top, left + size, top + size))


def center_offset(length: int, size: int) -> int:
    """Return where the centre `size` pixels of a side begin; negative where it is shorter."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _letterbox(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    size = preprocess.size
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    resized = image.resize((width, height), RESAMPLE[preprocess.interpolation])
    red, green, blue = (round(255 * value) for value in preprocess.mean)
    square = Image.new("RGB", (size, size), (red, green, blue))
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square
