"""What augmentation does to a waveform: noise at a ratio, a room, a gain, another clip; pure functions of their input.

Waveforms are float32 (n,), mono, 16 kHz. Results may go beyond 1, since nothing is clipped. A silent clip stays silent.
"""

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ

PRE_DELAY_S = 0.002  # of a synthetic room's tail behind the direct sound
LOWEST_HZ = 20.0  # below it coloured noise is flat: 1 / f has no end at zero


def power(samples: np.ndarray) -> float:
    """Mean square."""
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def with_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    return (samples * 10 ** (gain_db / 20)).astype(np.float32)


def with_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Both added, the noise scaled such that the ratio of mean powers over the whole clip is `snr_db`."""
    of_noise = power(noise)
    if not of_noise:
        return samples
    scale = np.sqrt(power(samples) / of_noise * 10 ** (-snr_db / 10))
    noisy: np.ndarray = (samples + scale * noise).astype(np.float32)
    return noisy


def coloured_noise(n: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, (n,) float64, with a power spectrum of 1 / f ** exponent: 0 white, 1 pink, 2 brown."""
    size = 1 << max(n - 1, 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    return np.fft.irfft(spectrum * np.maximum(hz, LOWEST_HZ) ** (-exponent / 2), size)[:n]


def excerpt(samples: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return (n,) samples from a random place on; audio that is too short is repeated."""
    start = int(rng.integers(len(samples) if len(samples) < n else len(samples) - n + 1))
    if start + n <= len(samples):
        return samples[start : start + n]
    return np.resize(np.roll(samples, -start), n)


def synthetic_room(t60_s: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """Return an impulse response: 1, and from 2 ms on Gaussian noise that decays by 60 dB in `t60_s` seconds.

    direct_db: energy of the direct sound over that of the tail.
    """
    n = max(1, round(t60_s * SAMPLE_RATE_HZ))
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: round(PRE_DELAY_S * SAMPLE_RATE_HZ)] = 0
    energy = float(np.square(tail).sum())
    response = tail * np.sqrt(10 ** (-direct_db / 10) / energy) if energy else tail
    response[0] = 1.0
    return response


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolved with an impulse response from its peak on, cut to the same length, at the same mean power."""
    response = response[int(np.abs(response).argmax()) :][: len(samples)]
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    reverberant = np.fft.irfft(product, size)[: len(samples)]
    of_heard = power(reverberant)
    return (reverberant * np.sqrt(power(samples) / of_heard)).astype(np.float32) if of_heard else samples


def n_overlapping(n_first: int, n_second: int, share: float) -> int:
    """Return samples in which two clips overlap: a share of the shorter one."""
    return round(share * min(n_first, n_second))


def overlapped(first: np.ndarray, second: np.ndarray, share: float, level_db: float) -> np.ndarray:
    """Return the first clip, and the second from `share` of the shorter one before the first one's end on.

    The second is brought to `level_db` over the first one's mean power. The result is as long as both without overlap.
    """
    n_shared = n_overlapping(len(first), len(second), share)
    result = np.zeros(len(first) + len(second) - n_shared, np.float64)
    result[: len(first)] = first
    of_second = power(second)
    scale = np.sqrt(power(first) / of_second) * 10 ** (level_db / 20) if of_second else 0.0
    result[len(first) - n_shared :] += scale * second
    return result.astype(np.float32)
