"""Random numbers that depend on names, not on the order of work.

Every image, plate and lamp draws from its own generator, seeded by what it is called. So an image is the same whether
it is simulated first or last, alone or among thousands.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator (PCG64) that belongs to ``names``.

    Parameters
    ----------
    seed : int
        The seed of the whole simulation, not negative.
    *names : str or int
        What the numbers are for, from the large to the small: study, image, purpose.

    Examples
    --------
    >>> first = generator(75, "mini0001", "A01").integers(1000)
    >>> first == generator(75, "mini0001", "A01").integers(1000)
    np.True_
    """
    # crc32, since hash() of a text differs between processes
    words = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))
