"""JPEG files that cost a decoder about what photographs do: ImageNet's usual size, smooth shapes and some grain."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

WIDTH, HEIGHT = 500, 375
FOLDERS = 100


def why_not():
    """Why they cannot be made here, or none."""
    try:
        import numpy  # noqa: F401
        from PIL import Image  # noqa: F401
    except ImportError as problem:
        return f"pictures are made with Pillow and NumPy: {problem}"
    return None


def make(folder, count):
    """Writes `count` of them into folders as of classes."""
    for number in range(min(FOLDERS, count)):
        (folder / f"{number:03}").mkdir(parents=True, exist_ok=True)
    if count < 2 * FOLDERS:
        for number in range(count):
            write(folder, number)
        return
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(write, folder), range(count), chunksize=64):
            pass


def write(folder, number):
    import numpy
    from PIL import Image

    drawn = numpy.random.default_rng(number)
    coarse = Image.fromarray(drawn.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=numpy.uint8))
    smooth = numpy.asarray(coarse.resize((WIDTH, HEIGHT), Image.BICUBIC)).astype(int)
    grain = drawn.integers(-12, 13, smooth.shape)
    picture = Image.fromarray((smooth + grain).clip(0, 255).astype(numpy.uint8))
    picture.save(os.path.join(folder, f"{number % FOLDERS:03}", f"{number:06}.jpg"), quality=90)
