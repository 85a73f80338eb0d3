"""What a server is asked for, in the units that requests are counted in."""

from __future__ import annotations

from fixres.inference.server.settings import Limits, ServeRequest, Settings


def test_a_server_that_is_asked_for_nothing_has_the_default_limits() -> None:
    settings = Settings.of(ServeRequest(source="run"))
    assert settings == Settings(source="run")
    assert settings.limits == Limits()


def test_what_is_asked_for_becomes_limits() -> None:
    request = ServeRequest(
        source="run",
        sizes=(128, 96, 128),
        max_mb=200,
        max_megapixels=0.5,
        max_files=9,
        max_queue=4,
        max_size=300,
        timeout=2.5,
    )
    settings = Settings.of(request)
    assert settings.sizes == (96, 128)
    assert settings.limits == Limits(
        body_bytes=200 << 20, held_bytes=400 << 20, pixels=500_000, files=4, size=300, waiting=4, seconds=2.5
    )
    assert Settings.from_json(settings.to_json()) == settings


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings(source="x", sizes=(96, 128), limits=Limits(size=200, seconds=1.5))
    assert Settings.from_json(settings.to_json()) == settings


def test_how_a_checkpoint_is_fed_survives_the_way_to_a_worker() -> None:
    request = ServeRequest(
        source="w.pth#ema",
        fed_as="simpleclassification",
        resize="height",
        crop_ratio=0.9,
        interpolation="bicubic",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )
    settings = Settings.of(request)
    assert Settings.from_json(settings.to_json()) == settings
    assert (settings.fed_as, settings.mean, settings.std) == ("simpleclassification", request.mean, request.std)
