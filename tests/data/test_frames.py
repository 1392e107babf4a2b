"""Frames of series against loops."""

import numpy as np
import pytest

from anaphora.data import DataError, Frames


def test_frames_by_their_definition(rng):
    series = [rng.standard_normal((n, 2)) * [1, 5] + 3 for n in (100, 70, 101)]
    frames = Frames.fit(series, max_frames=32)
    steps = np.concatenate(series)
    np.testing.assert_allclose(frames.mean, steps.mean(axis=0))
    np.testing.assert_allclose(frames.deviation, steps.std(axis=0))
    assert (frames.stride, frames.size, frames.features) == (4, 12, 26)  # the median is 100

    def cut(x):
        z = (x - steps.mean(axis=0)) / steps.std(axis=0)
        for start in range(0, len(z), 4):
            yield np.array([z[min(t, len(z) - 1)] for t in range(start, start + 12)])

    within = np.array([f - f.mean(axis=0) for x in series for f in cut(x)])
    spread = (within**2).mean(axis=(0, 1)) ** 0.25
    np.testing.assert_allclose(frames.spread, spread)
    for x in (*series, series[0][:3]):
        expected = [
            np.concatenate([((f - f.mean(axis=0)) / spread).ravel(), f.mean(axis=0)])
            for f in cut(x)
        ]
        found = frames(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"max_frames": None}, {}])
def test_what_is_short_enough_is_only_standardised(options, rng):
    series = [rng.standard_normal((n, 3)) for n in (7, 30)]
    frames = Frames.fit(series, **options)
    assert (frames.stride, frames.size, frames.features) == (1, 1, 3)
    expected = (series[0] - frames.mean) / frames.deviation
    np.testing.assert_allclose(frames(series[0]), expected, rtol=1e-5, atol=1e-6)


def test_series_without_steps_and_without_movement():
    frames = Frames.fit([np.full((50, 1), 2.0), np.zeros((0, 1))], max_frames=5)
    assert frames(np.zeros((0, 1))).shape == (0, frames.features)
    assert np.isfinite(frames(np.full((50, 1), 2.0))).all()


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="max_frames is 0; it must be at least 1, or None"):
        Frames.fit([np.ones((3, 1))], max_frames=0)
    frames = Frames.fit([np.arange(50.0)[:, None]])
    with pytest.raises(DataError, match=r"series 3 has the value 1e\+300 in channel 0 at step 1"):
        frames(np.array([[1.0], [1e300]]), "series 3")
