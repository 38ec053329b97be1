"""Generate the messages in `src/gen` from `protos/`: `python -m clients.typescript.generate [FOLDER]`.

The generator is the npm package `@bufbuild/protoc-gen-es`: run `npm ci` in this folder first. The output is committed,
so that building the package needs no protoc.

The rules of `buf/validate/validate.proto`, which only the server checks, would be the largest part of the package, and
only gateways read the paths of `google/api/annotations.proto`. The code is generated from descriptors without these
imports; the options remain in them as unknown fields.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from clients.descriptors import compile_protos, run_protoc

HERE = Path(__file__).resolve().parent
PLUGIN = HERE / "node_modules" / ".bin" / "protoc-gen-es"
NOT_NEEDED = ("buf/validate/validate.proto", "google/api/annotations.proto", "google/api/http.proto")
OPTIONS = "target=ts,import_extension=js"


def generate(output: Path) -> None:
    """Write the generated modules to a folder, replacing what is there.

    Raises:
        RuntimeError: the generator is not installed, or failed; it has printed the reason.
    """
    if not PLUGIN.exists():
        raise RuntimeError(f"protoc-gen-es is not installed: run `npm ci` in {HERE}")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    descriptors = FileDescriptorSet.FromString(compile_protos())
    kept = [file for file in descriptors.file if file.name not in NOT_NEEDED]
    for file in kept:
        for name in set(NOT_NEEDED) & set(file.dependency):
            file.dependency.remove(name)
    # The plugin generates only what it is asked for, and modules of google.protobuf are in its runtime.
    names = [file.name for file in kept if not file.name.startswith("google/protobuf/")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors.binpb"
        path.write_bytes(FileDescriptorSet(file=kept).SerializeToString())
        run_protoc(
            f"--plugin=protoc-gen-es={PLUGIN}",
            f"--descriptor_set_in={path}",
            f"--es_out={output}",
            f"--es_opt={OPTIONS}",
            *names,
        )


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "src" / "gen")
