"""The protos: their sources, and the rules of their fields."""

import subprocess
import sys
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tests.support.paths import ROOT


@cache
def sources() -> FileDescriptorSet:
    """Compile the sources with their comments and with `buf/validate`: the generated code has neither."""
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", "-Iprotos/third_party"]
    names = [str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos/commerce").rglob("*_service.proto")]
    command = [*protoc, "--include_imports", "--include_source_info", "--descriptor_set_out=/dev/stdout", *names]
    return FileDescriptorSet.FromString(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


@cache
def rules_pool() -> DescriptorPool:
    """Return a pool of its own with the messages of the rules, for which no generated code is installed."""
    pool = DescriptorPool()
    for file in sources().file:
        if file.name.startswith(("google/protobuf/", "buf/validate/")):
            pool.Add(file)
    return pool


def rules_of(field: FieldDescriptor) -> Any:
    """Return the `buf.validate.field` option, which the generated code carries as an unknown field."""
    pool = rules_pool()
    options_class = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    options = options_class.FromString(field.GetOptions().SerializeToString())
    rules: Any = pool.FindExtensionByName("buf.validate.field")
    return options.Extensions[rules]
