"""Try the container image: serve a freshly trained model from it, ask both ways, stop it.

Run by `make image-test`, with docker where its engine answers and buildah elsewhere. IMAGE names the image
(default: dropserve:cpu).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sklearn.datasets import load_breast_cancer

from dropserve_client import Client, DropserveError

DROPSERVE = Path(sys.executable).with_name("dropserve")
HEALTHCHECK = ("python3", "-m", "dropserve_server.healthcheck")
START_SECONDS = 60.0
STOP_SECONDS = 40


class ImageError(Exception):
    """The image does not do what it should."""


@dataclass(frozen=True)
class Container:
    """A started container: where its gRPC port is reached, and how to run a command inside."""

    address: str
    inside: tuple[str, ...]


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def docker_container(image: str, repository: Path) -> Iterator[Container]:
    """Run the image with docker, on a port of its choice."""
    volume = f"{repository}:/repository:ro"
    name = output("docker", "run", "--detach", "--volume", volume, "--publish", "127.0.0.1::8001", image)
    try:
        yield Container(output("docker", "port", name, "8001/tcp").splitlines()[0], ("docker", "exec", name))
        output("docker", "stop", "-t", str(STOP_SECONDS), name)
        expect("exit status", output("docker", "inspect", "--format", "{{.State.ExitCode}}", name), "0")
    finally:
        output("docker", "rm", "--force", name)


@contextmanager
def buildah_container(image: str, repository: Path) -> Iterator[Container]:
    """Run the image's own command with buildah, as its own user; it shares this machine's network."""
    name = output("buildah", "from", image)
    try:
        config = json.loads(output("buildah", "inspect", name))["Docker"]["config"]
        ports = dict(zip(("DROPSERVE_GRPC_PORT", "DROPSERVE_METRICS_PORT"), free_ports(2), strict=True))
        environment = [argument for port in ports.items() for argument in ("--env", "{}={}".format(*port))]
        inside = ("buildah", "run", "--isolation", "chroot", *environment)
        command = [
            *inside,
            "--volume",
            f"{repository}:/repository:ro",
            name,
            *config["Entrypoint"],
            *config["Cmd"],
        ]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                yield Container(f"127.0.0.1:{ports['DROPSERVE_GRPC_PORT']}", (*inside, name))
            finally:
                stop(process)
        expect("exit status", str(process.returncode), "0")
    finally:
        output("buildah", "rm", name)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the server, as an engine would, and wait.

    Buildah itself would answer the signal by killing the server, so the innermost of its processes gets it.
    """
    pid = process.pid
    while children := children_of(pid):
        pid = children[0]
    os.kill(pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise ImageError(f"not stopped {STOP_SECONDS} s after SIGTERM") from None


def children_of(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    started = (task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return [int(child) for children in started for child in children.split()]


def expect(what: str, found: str, wanted: str) -> None:
    """Fail where two things differ."""
    if found != wanted:
        raise ImageError(f"{what}: {found!r}, wanted {wanted!r}")
    print(f"{what}: {found}", flush=True)


def wait_until_healthy(container: Container) -> None:
    """Ask the image's own health check until it is content."""
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run([*container.inside, *HEALTHCHECK], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise ImageError(f"not healthy after {START_SECONDS:.0f} s")
        time.sleep(0.5)
    print("healthy", flush=True)


def ask(container: Container) -> None:
    """Predict some rows both ways."""
    X, _ = load_breast_cancer(return_X_y=True)
    with Client(container.address) as client:
        point = client.predict("breast_cancer", X[:5])
        bars = client.predict("breast_cancer", X[:5], passes=100, seed=7)
    assert bars.std is not None
    for row in range(5):
        print(f"{point.mean[row, 1]:.3f}   {bars.mean[row, 1]:.3f} ± {bars.std[row, 1]:.3f}", flush=True)


def train(repository: Path) -> None:
    """Publish a model that any user may read."""
    where: list[str | Path] = ["--name", "breast_cancer", "--repository", repository]
    subprocess.run([DROPSERVE, "train", "--data", "sklearn:breast_cancer", *where], check=True)
    repository.parent.chmod(0o755)


def main() -> int:
    """Run the test, and return an exit status."""
    image = os.environ.get("IMAGE", "dropserve:cpu")
    docker = subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    start = docker_container if docker else buildah_container
    try:
        with tempfile.TemporaryDirectory() as temporary:
            repository = Path(temporary, "repository")
            train(repository)
            with start(image, repository) as container:
                wait_until_healthy(container)
                expect("user", output(*container.inside, "id", "-u"), "10001")
                ask(container)
    except (ImageError, DropserveError) as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"image-test: {error} {error.stderr or ''}", file=sys.stderr)
        return 1
    print("the image serves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
