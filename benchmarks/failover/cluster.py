"""Run a highly available PostgreSQL for the trial: etcd, three nodes under Patroni, and HAProxy before the leader."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent
NODES = ("a", "b", "c")
# How often `until` checks a condition before it gives up, every 0.1 s.
CHECKS = 900
# PostgreSQL refuses to run as root, so root runs the nodes as another user, in a user namespace of their own.
AS_ANOTHER_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")


class Node:
    """One PostgreSQL and its Patroni, treated as if they ran on a machine of their own."""

    def __init__(self, name: str, folder: Path, patroni: Path, settings: Mapping[str, object]) -> None:
        self.name = name
        self.port, self.rest_port = free_ports(2)
        self._folder = folder / name
        self._folder.mkdir(mode=0o700)
        self._config = self._folder / "patroni.yml"
        own = {"name": name, "port": self.port, "rest_port": self.rest_port, "folder": self._folder}
        self._config.write_text(Template((HERE / "patroni.yml").read_text()).substitute(settings, **own))
        self._patroni = patroni
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        user = AS_ANOTHER_USER if os.geteuid() == 0 else ()
        self._process = start(self._folder / "patroni.log", *user, self._patroni, self._config)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the node."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Kill every process of the node, if it runs."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON that Patroni answers with status 200, or None for any other answer or none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=1)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return json.load(response) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return None
        finally:
            connection.close()

    def order(self, path: str, **body: str) -> None:
        """Send a command to Patroni's REST API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"Patroni refused {path} with status {response.status}: {response.read().decode()}")
        connection.close()

    def _pids(self) -> list[int]:
        # A process group does not cover them: Patroni is not the postmaster's parent, and backends have own sessions.
        named = os.fsencode(f"{self._folder}/")
        found, children = list[int](), dict[int, list[int]]()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if named in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(process.name))
        for pid in found:
            found.extend(child for child in children.get(pid, ()) if child not in found)
        return found


class Cluster:
    """The nodes, and the port on which HAProxy forwards to the leader."""

    def __init__(self, nodes: Sequence[Node], port: int, *, synchronous: bool) -> None:
        self.nodes = nodes
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._standbys = ["async", "sync" if synchronous else "async"]

    async def leader(self, *, other_than: Node | None = None) -> Node:
        """Wait for a leader, other than the given node, and return it."""

        def find() -> Node | None:
            others = (node for node in self.nodes if node is not other_than)
            return next((node for node in others if node.ask("/leader")), None)

        found: Node = await until(find)
        return found

    async def wait_until_replicating(self) -> None:
        """Wait until one leader streams to both other nodes, to one of them synchronously if the cluster should."""

        def streams_to_both() -> bool:
            leaders = [state for node in self.nodes if (state := node.ask("/leader"))]
            standbys = leaders[0].get("replication", []) if len(leaders) == 1 else []
            streaming = [standby["sync_state"] for standby in standbys if standby["state"] == "streaming"]
            return sorted(streaming) == self._standbys

        await until(streams_to_both)


@asynccontextmanager
async def cluster(folder: Path, *, patroni: Path, bin_dir: Path, synchronous: bool) -> AsyncIterator[Cluster]:
    """Run a cluster until the block ends."""
    with ExitStack() as stack:
        etcd_port, peer_port, port = free_ports(3)
        etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        urls = [f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}"]
        stack.enter_context(running(folder / "etcd.log", "etcd", f"--data-dir={folder / 'etcd'}", *urls))
        settings = {"etcd_port": etcd_port, "bin_dir": bin_dir, "synchronous": str(synchronous).lower()}
        nodes = [Node(name, folder, patroni, settings) for name in NODES]
        servers = "\n".join(
            f"    server {node.name} 127.0.0.1:{node.port} check port {node.rest_port}" for node in nodes
        )
        config = folder / "haproxy.cfg"
        config.write_text(Template((HERE / "haproxy.cfg").read_text()).substitute(port=port, servers=servers))
        stack.enter_context(running(folder / "haproxy.log", "haproxy", "-db", "-f", config))
        for node in nodes:
            node.start()
            stack.callback(node.stop)
        made = Cluster(nodes, port, synchronous=synchronous)
        await made.wait_until_replicating()
        yield made


@contextmanager
def running(log: Path, *command: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    process = start(log, *command, **environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start(log: Path, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program that Linux terminates when this process ends, even if this process is killed."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own commands
            ["setpriv", "--pdeathsig=TERM", "--", *command],  # noqa: S607 - setpriv is found through PATH
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


async def until(condition: Callable[[], Any]) -> Any:  # noqa: ANN401 - the condition's result
    """Call a condition in a thread until its result is true, and return it.

    Raises:
        TimeoutError: the result was false too often.

    """
    # Checks are counted, not timed, so that a machine that is suspended for a while does not fail the trial.
    for _ in range(CHECKS):
        if found := await asyncio.to_thread(condition):
            return found
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the condition {condition.__qualname__} did not become true in {CHECKS} checks")
