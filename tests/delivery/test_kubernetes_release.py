"""A release on Kubernetes, played through: the processes of the manifests in their order, on this machine.

Pods are started, probed and ended as the manifests say, each confined as its container would be. What the test changes
of the overlay are three times, so that it does not take minutes.
"""

import asyncio
import shutil
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from cryptography import x509
from trustme import CA

from service.db.operations.migrate import head
from tests.support.certificates import chain
from tests.support.clients import new_user
from tests.support.databases import driver_connection
from tests.support.failures import failure_of
from tests.support.identities import client_certificate
from tests.support.manifests import copy_manifests, named, render
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.pods import Cluster, Pod, Release, run_job, running_pod
from tests.support.processes import free_port
from tests.support.waiting import eventually

ACCOUNTS = "spiffe://commerce/accounts"
# In the overlay `mtls`, with times that a test can wait for.
QUICKLY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../mtls
configMapGenerator:
  - name: commerce-settings
    namespace: commerce
    behavior: merge
    literals:
      - COMMERCE_MAX_CONNECTION_AGE=1
      - COMMERCE_TLS_RELOAD_INTERVAL=0.5
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: commerce, namespace: commerce}
      spec:
        minReadySeconds: 0
        template:
          spec:
            containers:
              - name: server
                lifecycle: {preStop: {sleep: {seconds: 1}}}
"""
EXPAND = 'op.add_column("users", sa.Column("nickname", sa.Text(), nullable=True))'
CONTRACT = 'op.drop_column("users", "nickname")'
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{revision}", "{previous}", None, None

def upgrade() -> None:
    {statement}
"""
# As docs/calling.md recommends: round robin over the ready servers, and UNAVAILABLE is repeated.
CALLER = """{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "readiness"},
  "methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s",
  "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""


class Certificates:
    """The Secret that cert-manager makes, mounted as the kubelet does: all files of it change together."""

    def __init__(self, folder: Path) -> None:
        self.ca = CA()
        self.folder = folder
        self._versions = count()
        folder.mkdir()
        self.renew()
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (folder / name).symlink_to(Path("..data") / name)

    def renew(self) -> int:
        """Issue a new certificate with a new key, and return its serial number."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        version = self.folder / f"..version-{next(self._versions)}"
        version.mkdir()
        (version / "tls.crt").write_bytes(chain(issued))
        (version / "tls.key").write_bytes(issued.private_key_pem.bytes())
        (version / "ca.crt").write_bytes(self.ca.cert_pem.bytes())
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        return x509.load_pem_x509_certificate(chain(issued)).serial_number

    def serial_number(self, port: int) -> int:
        """Return the serial number of the certificate that a server shows on a new connection."""
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number


@dataclass
class Served:
    """What callers have seen.

    Attributes:
        created: the ids of the users that they were told are created.
        read: how many reads were answered.
        failures: what failed, by reason.
    """

    created: set[str] = field(default_factory=set)
    read: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def calling(ports: Sequence[int], certificates: Certificates) -> AsyncIterator[Served]:
    """Let four callers create users and read them until the block ends."""
    served = Served()
    certificate, key = client_certificate(certificates.ca, uris=(ACCOUNTS,))
    credentials = grpc.ssl_channel_credentials(certificates.ca.cert_pem.bytes(), key, certificate)
    options = [
        ("grpc.service_config", CALLER),
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    # All addresses that pods can have, as those that a name stands for.
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)

    async def call() -> None:
        async with grpc.aio.secure_channel(target, credentials, options) as channel:
            users = UserServiceStub(channel)
            while True:
                request = users_pb.CreateUserRequest(user=new_user(), password=PASSWORD, request_id=str(uuid4()))
                try:
                    user = (await users.CreateUser(request, timeout=10)).user
                    served.created.add(user.id)
                    for _ in range(4):
                        assert (await users.GetUser(users_pb.GetUserRequest(id=user.id), timeout=10)).user == user
                        served.read += 1
                        await asyncio.sleep(0.05)
                except grpc.aio.AioRpcError as error:
                    failure = failure_of(error)
                    served.failures[f"{failure.code.name} {failure.reason or failure.message}"] += 1

    tasks = [asyncio.create_task(call()) for _ in range(4)]
    try:
        yield served
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


class Deployment:
    """The Deployment of the servers, and what its controller does: one pod more, and none less, than it names."""

    def __init__(self, cluster: Cluster, stack: AsyncExitStack) -> None:
        self._cluster = cluster
        self._stack = stack
        self._workload = named(cluster.resources, "commerce")
        self._numbers = count()
        self.ports = [free_port() for _ in range(4)]
        self._pods: dict[int, tuple[Pod, Release]] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}

    @property
    def port(self) -> int:
        """The port of one of the pods."""
        return next(iter(self._pods))

    async def start(self, release: Release, replicas: int = 2) -> None:
        """Make as many pods, and wait until they are available."""
        await asyncio.gather(*(self._add(release) for _ in range(replicas)))

    async def roll(self, release: Release, at_most: int = 2) -> None:
        """Replace pods of other releases one after the other, each when the new one is available."""
        for port in [port for port, (_, running) in self._pods.items() if running != release][:at_most]:
            await self._add(release)
            pod, _ = self._pods.pop(port)
            self._ending[port] = asyncio.create_task(self._end(pod))

    async def settled(self) -> None:
        """Wait until all pods that were replaced have ended."""
        await asyncio.gather(*self._ending.values())
        self._ending.clear()

    async def is_alive(self) -> bool:
        """Return whether the liveness probe of one of the pods succeeds."""
        pod, _ = next(iter(self._pods.values()))
        return await pod.is_alive()

    async def _add(self, release: Release) -> None:
        number = next(self._numbers)
        # In turns, so that a new pod does not have the address of one that is still ending.
        port = self.ports[number % len(self.ports)]
        assert port not in self._pods
        if port in self._ending:
            await self._ending.pop(port)
        running = running_pod(self._cluster, self._workload, f"commerce-{number}", release, port)
        pod = await self._stack.enter_async_context(running)
        self._pods[port] = pod, release
        await pod.until_ready()
        await asyncio.sleep(self._workload.spec["minReadySeconds"])

    async def _end(self, pod: Pod) -> None:
        ended = await pod.delete()
        assert ended.status == 0, ended.stderr
        # Every call has ended by itself.
        assert not ended.logged("cancelling calls that did not end in time")


def next_release(folder: Path, previous: str, revision: str, statement: str, base: Path = ROOT) -> Release:
    """Return a release that has one migration more than another."""
    folder.mkdir()
    for name in ("service", "migrations"):
        shutil.copytree(base / name, folder / name)
    for name in ("client", "clients", "tests", "alembic.ini"):
        (folder / name).symlink_to(ROOT / name)
    text = REVISION.format(revision=revision, previous=previous, statement=statement)
    (folder / "migrations" / "versions" / f"{revision}_played.py").write_text(text)
    return Release(folder)


@pytest.fixture
def cluster(tmp_path: Path, empty_database_url: str) -> Iterator[Cluster]:
    """A cluster in which the overlay is applied, and the secrets that docs/kubernetes.md names exist."""
    overlay = copy_manifests(tmp_path) / "overlays" / "quickly"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(QUICKLY)
    database = tmp_path / "database"
    database.mkdir()
    for key in ("url", "direct-url"):
        (database / key).write_text(empty_database_url)
    secrets = {"commerce-database": database, "commerce-tls": tmp_path / "tls"}
    # The path of a Unix socket may have 107 bytes, which that of a test's folder can take already.
    with TemporaryDirectory(prefix="pods-") as volumes:
        yield Cluster(render(overlay), Path(volumes), secrets)


async def test_a_release_is_rolled_out_and_back_its_schema_changes_and_its_certificate_is_replaced(
    cluster: Cluster, tmp_path: Path, empty_database_url: str
) -> None:
    certificates = Certificates(cluster.secrets["commerce-tls"])
    server, migrate = (named(cluster.resources, name) for name in ("commerce", "commerce-migrate"))
    first, previous = Release(), head()
    second = next_release(tmp_path / "second", previous, "9001", EXPAND)
    third = next_release(tmp_path / "third", "9001", "9002", CONTRACT, second.tree)

    # What is applied before its migration does no harm: it ends, and the kubelet starts it again later.
    too_early = await run_job(cluster, server, "too-early", first)
    assert too_early.status == 1
    assert "run `commerce migrate`" in too_early.stderr
    assert (await run_job(cluster, migrate, "migrate-1", first)).stdout == "migrated\n"

    async with AsyncExitStack() as stack:
        deployment = Deployment(cluster, stack)
        await deployment.start(first)
        assert await deployment.is_alive()
        async with calling(deployment.ports, certificates) as served:
            await until_served(served)

            # Expand, while the first release serves; then the second one starts, is taken back, and starts again.
            assert (await run_job(cluster, migrate, "migrate-2", second)).stdout == "migrated\n"
            await deployment.roll(second, at_most=1)
            await until_served(served)
            await deployment.roll(first)
            await until_served(served)
            await deployment.roll(second)
            await until_served(served)

            # Contract, when nothing runs any more that needs what is removed.
            await deployment.settled()
            assert (await run_job(cluster, migrate, "migrate-3", third)).stdout == "migrated\n"
            await until_served(served)

            renewed = certificates.renew()
            await eventually(lambda: certificates.serial_number(deployment.port) == renewed)
            await until_served(served)
        await deployment.settled()
    assert not served.failures
    async with driver_connection(empty_database_url) as connection:
        created = {str(row["id"]) for row in await connection.fetch("SELECT id FROM users")}
    # The last call of each caller may have been cancelled.
    assert served.created <= created
    assert len(created - served.created) <= 4


async def until_served(served: Served) -> None:
    """Wait until more calls were answered."""
    goal = served.read + 20
    await eventually(lambda: served.read >= goal or served.failures, 60)
    assert not served.failures
