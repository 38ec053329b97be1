"""The programs of the overlay with PgBouncer run behind a real one that has the configuration of the manifests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.db.connections.engine import async_url
from tests.support.clients import connect
from tests.support.manifests import copy_manifests, named, render
from tests.support.pgbouncers import PROGRAM, started
from tests.support.pods import Cluster, Release, run_job, running_pod
from tests.support.processes import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

# On the base instead of `production`, so that the servers need neither a certificate nor keys.
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../../base
components:
  - ../../components/pgbouncer
"""
PASSWORD = "quietly"  # noqa: S105 - of a PostgreSQL that lives as long as the test


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster with the overlay, whose Secrets are folders that tests fill."""
    overlay = copy_manifests(tmp_path) / "overlays" / "pooled"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(OVERLAY)
    secrets = {name: tmp_path / name for name in ("commerce-database", "commerce-pgbouncer")}
    for folder in (*secrets.values(), tmp_path / "volumes"):
        folder.mkdir()
    return Cluster(render(overlay), tmp_path / "volumes", secrets)


@asynccontextmanager
async def pgbouncer_of(cluster: Cluster, database_url: str) -> AsyncIterator[str]:
    """Run PgBouncer as its pods do, and yield the URL by which servers reach it."""
    to, port = async_url(database_url), free_port()
    host = str(to.host or to.query["host"])
    secret = cluster.secrets["commerce-pgbouncer"]
    target = f"host='{host}' port={to.port or to.query.get('port', 5432)} dbname={to.database}"
    (secret / "databases.ini").write_text(f"[databases]\ncommerce = {target}\n")
    (secret / "userlist.txt").write_text(f'"{to.username}" "{PASSWORD}"\n')
    (text,) = (
        found["data"]["pgbouncer.ini"] for found in cluster.resources if "pgbouncer.ini" in found.get("data", ())
    )
    for old, new in {
        "/etc/pgbouncer-secret": str(secret),
        "listen_addr = 0.0.0.0": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (secret / "pgbouncer.ini").write_text(text)
    with (secret / "log").open("wb") as log, started(secret / "pgbouncer.ini", host, log.fileno()) as process:
        try:
            await eventually(lambda: b"process up" in (secret / "log").read_bytes() or process.poll() is not None)
            assert process.poll() is None, (secret / "log").read_text()
            yield f"postgresql://{to.username}:{PASSWORD}@127.0.0.1:{port}/commerce"
        finally:
            process.kill()


async def test_a_server_and_gc_run_through_it_and_the_migration_past_it(
    cluster: Cluster, empty_database_url: str
) -> None:
    async with pgbouncer_of(cluster, empty_database_url) as url:
        (cluster.secrets["commerce-database"] / "url").write_text(url)
        (cluster.secrets["commerce-database"] / "direct-url").write_text(empty_database_url)
        migrate, gc, server = (named(cluster.resources, f"commerce{name}") for name in ("-migrate", "-gc", ""))
        assert (await run_job(cluster, migrate, "migrate", Release())).stdout == "migrated\n"
        port = free_port()
        async with running_pod(cluster, server, "server", Release(), port) as pod:
            await pod.until_ready()
            async with connect(port) as clients:
                user = await clients.create_user()
                assert (await clients.create_order(user.id)).user_id == user.id
            assert (await run_job(cluster, gc, "gc", Release())).status == 0
