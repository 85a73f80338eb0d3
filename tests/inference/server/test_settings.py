"""Settings on their way to a worker."""

from __future__ import annotations

from fixres.inference.server.settings import Limits, Settings


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings("x", sizes=(96, 128), limits=Limits(size=200, seconds=1.5))
    assert Settings.from_json(settings.to_json()) == settings
