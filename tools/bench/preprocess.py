"""The other side of decoding and cropping: Pillow, on one thread, as the published extraction uses it."""

import io
import time

import numpy
from PIL import Image

SIZE = 256


def center_crop(image):
    """ADM's centre crop: halve with a box filter while twice too large, then bicubic, then cut the middle out."""
    while min(image.size) >= 2 * SIZE:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def timed(files, repeats):
    """Seconds of each repeat over all files, and their views (u8, [files, SIZE, SIZE, 3])."""
    encoded = [file.read_bytes() for file in files]
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        views = [numpy.asarray(center_crop(Image.open(io.BytesIO(data)).convert("RGB"))) for data in encoded]
        seconds.append(time.perf_counter() - started)
    # The first round warmed the caches.
    return seconds[1:], numpy.stack(views)
