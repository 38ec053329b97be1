"""The frame of the console: files, navigation, theme, credentials."""

from tests.console.conftest import PHONE, Console


async def test_the_first_view_is_small(console: Console) -> None:
    sizes: dict[str, int] = {}

    async def measure() -> None:
        entries = await console.page.evaluate(
            "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
            ".map(({name, transferSize}) => [name, transferSize])"
        )
        sizes.update({name: size for name, size in entries})

    await console.open("/explore")
    await measure()
    assert any(name.endswith("/schema.json") for name in sizes)
    assert 0 < sum(sizes.values()) <= 300_000


async def test_no_barriers(console: Console) -> None:
    await console.open("/explore")
    for scheme in ("light", "dark"):
        await console.page.emulate_media(color_scheme=scheme)
        assert await console.barriers() == []
    width, height = PHONE
    await console.page.set_viewport_size({"width": width, "height": height})
    assert await console.barriers() == []
