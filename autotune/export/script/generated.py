"""Source code for the data of `synthetic` in memory: exactly the images that the trials trained on."""

from __future__ import annotations

_IMAGES = '''\
class PatternImages(Dataset):
    """Smooth patterns, one per class, shifted at random, with added noise; a tenth of the labels is wrong."""

    def __init__(self, samples, classes, size, seed):
        rng = np.random.default_rng([1, seed])
        pixels = size * size * 3
        self.shown = np.arange(samples) % classes
        wrong = rng.random(samples) < 0.1
        self.templates = np.stack([smooth(rng.random((4, 4, 3)), size) for _ in range(classes)])
        self.noise = rng.integers(0, 40, 3 * pixels, dtype=np.uint8)
        self.labels = np.where(wrong, rng.integers(0, classes, samples), self.shown)
        self.shifts = rng.integers(0, size, (samples, 2))
        self.stretches = rng.integers(0, 2 * pixels, samples)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, position):
        template = self.templates[self.shown[position]]
        start = self.stretches[position]
        noise = self.noise[start : start + template.size].reshape(template.shape)
        image = np.roll(template, self.shifts[position], axis=(0, 1)) + noise
        # NumPy, because torch would split so small a job over all threads, and have them wait for one another.
        pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
        pixels -= 128.0
        pixels /= 64.0
        return torch.from_numpy(pixels), int(self.labels[position])


def smooth(coarse, size):
    """A grid of 4 × 4 colours, interpolated to `size` × `size` on a torus."""
    distance = np.abs(np.arange(size)[:, None] * (4 / size) - np.arange(4))
    weights = np.clip(1 - np.minimum(distance, 4 - distance), 0, None)
    rows = np.einsum("ya,abc->ybc", weights, coarse)
    return (np.einsum("xb,ybc->yxc", weights, rows) * 216).astype(np.uint8)'''


def generated_images() -> str:
    """A class `PatternImages`; needs `np`, `torch` and `Dataset`."""
    return _IMAGES
