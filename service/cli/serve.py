"""The `commerce serve` command: this process serves, or starts workers that do.

What serves is imported only when that is known: a parent of workers needs neither gRPC nor a database.
"""

from pathlib import Path

from pydantic import SecretStr

from service.cli.running import load_and_log, one_line_errors, run
from service.config import DevelopmentServerSettings, ServerSettings


def serve(*, dev: bool, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    with one_line_errors():
        if not dev:
            _serve(load_and_log(ServerSettings, host=host, port=port, workers=workers), None)
            return
        from service.cli.development import with_http, with_metrics, with_policy  # noqa: PLC0415 - see above
        from service.cli.migrate import migrate_schema  # noqa: PLC0415 - see above
        from service.devtools.embedded_postgres import embedded_postgres  # noqa: PLC0415 - see above

        development = load_and_log(
            DevelopmentServerSettings,
            DATABASE_URL="postgresql:///",  # replaced below
            host=host,
            port=port,
            workers=workers,
            # There is no other server to move clients to, so Ctrl-C need not wait for their connections to age.
            max_connection_age=0,
            shutdown_grace=1,
        )
        development = with_metrics(with_http(development))
        with embedded_postgres(development.data_dir, bin_dir=development.postgres_bin) as database_url:
            settings = with_policy(development.model_copy(update={"database_url": SecretStr(database_url)}))
            run(migrate_schema(settings, "head"))
            _serve(settings, development.data_dir)


def _serve(settings: ServerSettings, data_dir: Path | None) -> None:
    if settings.workers > 1:
        from service.cli.workers import serve_with_workers  # noqa: PLC0415 - see above

        serve_with_workers(settings, data_dir)
    else:
        from service.cli.one_process import serve_here  # noqa: PLC0415 - see above

        serve_here(settings, data_dir)
