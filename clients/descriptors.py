"""Write the descriptors of the API to a file: `python -m clients.descriptors FILE`.

The file is a `google.protobuf.FileDescriptorSet` with the comments of the protos and with all that they import.
Gateways, API explorers and generators read it instead of the protos. It also has `google/rpc/error_details.proto`,
which no proto imports: without it, a reader cannot decode the details of errors.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parents[1] / "protos"
PACKAGE = "commerce"
ERROR_DETAILS = "google/rpc/error_details.proto"


def sources() -> list[str]:
    """Return the names of the API's protos, by which they import each other."""
    return sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).rglob("*.proto"))


def compile_protos() -> bytes:
    """Return the serialized descriptors, sorted so that each file follows those that it imports.

    Raises:
        RuntimeError: protoc rejected the sources; it has printed the reason.
    """
    # protoc's own messages (google/protobuf/*.proto) are inside grpc_tools, the others of Google in
    # googleapis-common-protos.
    installed = Path(str(files("google.rpc") / "error_details.proto")).parents[2]
    includes = [f"-I{folder}" for folder in (PROTOS, PROTOS / "third_party", files("grpc_tools") / "_proto", installed)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors.binpb"
        with_imports_and_comments = ["--include_imports", "--include_source_info"]
        run_protoc(*includes, *with_imports_and_comments, f"--descriptor_set_out={output}", *sources(), ERROR_DETAILS)
        return output.read_bytes()


def run_protoc(*arguments: str) -> None:
    """Run protoc.

    Raises:
        RuntimeError: it failed; it has printed the reason.
    """
    if protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError("protoc failed")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(compile_protos())
