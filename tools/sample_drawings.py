"""Drawings for the built-in sample: six kinds of picture, each from a seeded generator.

Every function takes `(random, width, height)` and returns float RGB in 0..1, shape [height, width, 3]. They are drawn at twice
the size and reduced, so that edges are smooth. Nothing here comes from a photograph: the pictures are the program's own.
"""

import numpy as np


def grid(width, height):
    """Coordinates with the picture's centre at 0 and its shorter side from -1 to 1; each [height, width]."""
    scale = min(width, height) / 2
    return np.meshgrid((np.arange(width) - width / 2) / scale, (np.arange(height) - height / 2) / scale)


def palette(random, hue=None):
    """A smooth cyclic map from numbers to colours (cosines with shifted phases)."""
    phase = (random.random() if hue is None else hue) + np.array([0.0, 0.33, 0.62]) * random.uniform(0.5, 1.1)

    def colour(value):
        return 0.5 + 0.46 * np.cos(2 * np.pi * (np.asarray(value)[..., None] + phase))

    return colour


def mix(first, second, share):
    """Between two pictures or colours; `share` 0 is the first."""
    share = np.clip(share, 0, 1)[..., None]
    return first * (1 - share) + second * share


def noise(random, width, height, octaves=5, start=2):
    """Smooth noise in 0..1: random lattices of growing fineness, bilinear with smooth steps."""
    total = np.zeros((height, width))
    weight = 0.0
    for octave in range(octaves):
        cells = start * 2**octave
        lattice = random.random((cells + 2, cells + 2))
        y, x = np.linspace(0, cells, height, endpoint=False), np.linspace(0, cells, width, endpoint=False)
        row, column = y.astype(int)[:, None], x.astype(int)[None, :]
        down, right = (y - y.astype(int))[:, None], (x - x.astype(int))[None, :]
        down, right = down**2 * (3 - 2 * down), right**2 * (3 - 2 * right)
        top = lattice[row, column] * (1 - right) + lattice[row, column + 1] * right
        bottom = lattice[row + 1, column] * (1 - right) + lattice[row + 1, column + 1] * right
        total += (top * (1 - down) + bottom * down) / 2**octave
        weight += 1 / 2**octave
    return total / weight


def blossom(random, width, height):
    """A flower of several rings of petals over a soft background."""
    x, y = grid(width, height)
    petals, hue = int(random.integers(5, 13)), random.random()
    colour = palette(random, hue)
    picture = mix(np.array([0.10, 0.20, 0.13]), np.array([0.35, 0.50, 0.30]), noise(random, width, height, 4))
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    for ring in range(5):
        reach = 0.92 - 0.16 * ring
        edge = reach * (0.62 + 0.38 * np.abs(np.cos(petals * angle / 2 + ring * 1.3)) ** 0.7)
        inside = np.clip((edge - radius) * 60, 0, 1)
        shade = (0.45 + 0.55 * np.clip(radius / reach, 0, 1))[..., None]
        picture = mix(picture, colour(0.12 * ring + 0.1 * radius) * shade, inside)
    heart = np.clip((0.17 - radius) * 60, 0, 1)
    dots = 0.75 + 0.25 * np.sin(70 * x) * np.sin(70 * y)
    return mix(picture, np.array([0.95, 0.75, 0.15]) * dots[..., None], heart)


def fractal(random, width, height):
    """A Julia set, coloured by how soon its points escape."""
    x, y = grid(width, height)
    constant = [-0.8 + 0.156j, -0.4 + 0.6j, 0.285 + 0.01j, -0.70176 - 0.3842j, -0.835 - 0.2321j, 0.355 + 0.355j][
        int(random.integers(6))
    ]
    turn = np.exp(1j * random.uniform(0, np.pi))
    z = (x + 1j * y) * 1.25 * turn
    smooth = np.full(z.shape, 90.0)
    alive = np.ones(z.shape, bool)
    for step in range(90):
        z[alive] = z[alive] ** 2 + constant
        gone = alive & (np.abs(z) > 8)
        smooth[gone] = step + 1 - np.log2(np.log(np.abs(z[gone])) / np.log(8))
        alive &= ~gone
    picture = palette(random)(np.sqrt(np.maximum(smooth, 0)) / 6)
    return mix(picture, np.array([0.03, 0.03, 0.08]), alive.astype(float))


def hills(random, width, height):
    """Ranges of hills before a low sun."""
    x, y = grid(width, height)
    sky = palette(random, random.uniform(0.9, 1.1))
    picture = mix(sky(0.02) * 0.75, sky(0.28), (y + 1) / 1.6)
    sun_x, sun_y = random.uniform(-0.5, 0.5), random.uniform(-0.45, -0.05)
    distance = np.hypot(x - sun_x, y - sun_y)
    picture = mix(picture, np.array([1.0, 0.93, 0.72]), 0.75 * np.exp(-3 * distance))
    picture = mix(picture, np.array([1.0, 0.98, 0.88]), (0.17 - distance) * 60)
    base = palette(random)(0.3)
    for layer in range(6):
        ridge = -0.15 + 0.2 * layer
        for wave in range(1, 6):
            ridge = ridge + 0.16 / wave * np.sin(wave * 1.7 * x + random.uniform(0, 6.3))
        tint = mix(np.array([0.75, 0.72, 0.78]), base * 0.35, np.array((layer + 1) / 6))
        picture = mix(picture, tint * (1 - 0.12 * (y - ridge))[..., None], (y - ridge) * 60)
    return picture


def mosaic(random, width, height):
    """Voronoi cells with dark seams, as a stained-glass window."""
    x, y = grid(width, height)
    count = int(random.integers(30, 90))
    centres = random.uniform(-1.7, 1.7, (count, 2))
    distances = np.stack([np.hypot(x - cx, y - cy) for cx, cy in centres])
    order = np.argsort(distances, axis=0)[:2]
    nearest, second = np.take_along_axis(distances, order, axis=0)
    colour = palette(random)(random.random(count))[order[0]]
    light = 1.05 - 0.35 * np.hypot(x + 0.3, y + 0.4) + 0.15 * (second - nearest)
    return mix(np.array([0.06, 0.05, 0.07]), colour * light[..., None], (second - nearest - 0.012) * 45)


def spheres(random, width, height):
    """Shaded balls with highlights and shadows on a plain floor."""
    x, y = grid(width, height)
    floor = palette(random)(0.1)
    picture = mix(floor * 0.95, floor * 0.4, (y + 1) / 2)
    balls = sorted((random.uniform(0.14, 0.42), *random.uniform(-0.95, 0.95, 2), random.random()) for _ in range(11))
    colour = palette(random)
    for radius, cx, cy, hue in balls:
        shadow = np.hypot((x - cx - 0.25 * radius) / 1.1, y - cy - 0.3 * radius)
        picture = mix(picture, picture * 0.35, 0.7 * np.clip((1.15 * radius - shadow) / (0.4 * radius), 0, 1))
        u, v = (x - cx) / radius, (y - cy) / radius
        depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
        facing = np.clip(-0.45 * u - 0.6 * v + 0.66 * depth, 0, 1)
        surface = colour(hue) * (0.18 + 0.82 * facing)[..., None] + (facing**40)[..., None] * 0.8
        picture = mix(picture, surface, (1 - np.hypot(u, v)) * radius * 60)
    return picture


def waves(random, width, height):
    """Rings of several sources running through each other."""
    x, y = grid(width, height)
    total = np.zeros(x.shape)
    for _ in range(4):
        cx, cy = random.uniform(-1.3, 1.3, 2)
        total += np.sin(random.uniform(7, 16) * np.hypot(x - cx, y - cy) + random.uniform(0, 6.3))
    return palette(random)(0.11 * total + 0.25 * noise(random, width, height, 3)) * 0.95


KINDS = {"blossom": blossom, "fractal": fractal, "hills": hills, "mosaic": mosaic, "spheres": spheres, "waves": waves}
