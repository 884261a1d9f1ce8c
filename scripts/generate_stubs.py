"""Generate the Python stubs of every .proto file below proto/ into a folder.

Run by `make proto` and, into a scratch folder to compare with, by `make check`.
"""

import re
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"
BIN = Path(sys.executable).parent
OWN_POOL = "dropserve/inference"  # its __init__.py says why
PLUGINS = [f"--plugin={name}={BIN / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]


def generate(protos: list[Path], *outputs: str) -> int:
    """Run protoc on some files, and return its exit status."""
    status: int = protoc.main(["protoc", f"-I{ROOT}", *PLUGINS, *outputs, *map(str, protos)])
    return status


def main(destination: str) -> int:
    """Generate every stub, and return an exit status."""
    protos = sorted(ROOT.rglob("*.proto"))
    # For a file without services the gRPC plugin would write a module with nothing in it.
    services = [path for path in protos if re.search(r"^service ", path.read_text("utf-8"), re.MULTILINE)]
    status = generate(protos, f"--python_out={destination}", f"--mypy_out=quiet:{destination}") or generate(
        services, f"--grpc_python_out={destination}", f"--mypy_grpc_out=quiet:{destination}"
    )
    for stub in Path(destination, OWN_POOL).glob("*_pb2.py"):
        separate(stub)
    return status


def separate(stub: Path) -> None:
    """Have a stub keep its descriptors in its package's pool instead of protobuf's default one."""
    default_import = "from google.protobuf import descriptor_pool as _descriptor_pool"
    code = stub.read_text("utf-8")
    for line, ours in (
        (default_import, f"from {OWN_POOL.replace('/', '.')} import POOL as _POOL"),
        ("_descriptor_pool.Default()", "_POOL"),
    ):
        if code.count(line) != 1:
            raise ValueError(f"{stub} does not hold {line!r} once: protoc generates other code than it did")
        code = code.replace(line, ours)
    stub.write_text(code, "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
