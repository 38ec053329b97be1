"""The protos: their sources, and the rules of their fields."""

import re
import subprocess
import sys
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
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


@cache
def comments() -> dict[str, str]:
    """Return the comments of services and methods by full name."""
    found = {}
    for file in sources().file:
        for location in file.source_code_info.location:
            # 6: service, 2: method (descriptor.proto).
            if len(location.path) == 2 and location.path[0] == 6:
                found[f"{file.package}.{file.service[location.path[1]].name}"] = location.leading_comments
            if len(location.path) == 4 and (location.path[0], location.path[2]) == (6, 2):
                service = file.service[location.path[1]]
                method = service.method[location.path[3]]
                found[f"{file.package}.{service.name}.{method.name}"] = location.leading_comments
    return found


def rules_of(field: FieldDescriptor) -> Any:
    """Return the `buf.validate.field` option, which the generated code carries as an unknown field."""
    pool = rules_pool()
    options_class = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    options = options_class.FromString(field.GetOptions().SerializeToString())
    rules: Any = pool.FindExtensionByName("buf.validate.field")
    return options.Extensions[rules]


def documented_errors(method: MethodDescriptor) -> set[tuple[str, str]]:
    """Return the codes and reasons that a method can end with, as its comment and that of its service say."""
    service = method.full_name.rpartition(".")[0]
    text = re.sub(r"\s+", " ", f"{comments()[service]} {comments()[method.full_name]}")
    errors = {
        (code, reason)
        for code, reasons in re.findall(r"\b([A-Z]+(?:_[A-Z]+)*) \(([A-Z_]+(?:, [A-Z_]+)*)\)", text)
        for reason in reasons.split(", ")
    }
    # Their reasons have the name of the code.
    return errors | {(code, code) for code in ("DEADLINE_EXCEEDED", "INTERNAL") if code in text}
