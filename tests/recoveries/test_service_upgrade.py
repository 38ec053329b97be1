"""The commands of docs/operations/service-upgrade.md, on a schema of an earlier release."""

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations import migrate
from tests.support.dumps import dsn
from tests.support.pages import Page, Shell


async def test_the_schema_of_an_earlier_release_is_migrated(empty_database_url: str, shell: Shell) -> None:
    page = Page("docs/operations/service-upgrade.md")
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=empty_database_url), pool_size=1)
    await migrate.upgrade(engine, "0020")
    await engine.dispose()
    shell.set(DATABASE_URL=dsn(empty_database_url))
    printed = await page.run("Upgrade the service", shell)
    assert printed.startswith("migrated\nthe schema is up to date\n")
    assert f"ok    schema        revision {migrate.head()}\n" in printed
    assert page.unused == set()
