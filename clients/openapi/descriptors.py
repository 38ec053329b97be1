"""The protos as descriptors, with their comments and with the options that they set."""

import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
PACKAGE = "commerce"
# The paths to comments are lists of these field numbers of google/protobuf/descriptor.proto.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4
_METHODS, _VALUES = 2, 2


class Protos:
    """The compiled protos of the package, and all that they import.

    Attributes:
        pool: the descriptors.
        files: the names of the files of the package itself.
    """

    def __init__(self) -> None:
        compiled = _compile()
        self.pool = DescriptorPool()
        self.files = sorted(file.name for file in compiled.file if file.name.startswith(f"{PACKAGE}/"))
        for file in compiled.file:
            self.pool.Add(file)
        self._comments: dict[str, str] = {}
        for file in compiled.file:
            self._comments.update(_comments_of(file))

    def comment(self, full_name: str) -> str:
        """Return the comment before a declaration, without the line breaks inside its paragraphs."""
        return self._comments.get(full_name, "")

    def options(self, descriptor: Any) -> dict[str, Any]:  # noqa: ANN401 - of any kind of declaration
        """Return the options of a declaration in protobuf's JSON format, those of extensions as `[full.name]`."""
        # Parsed again with the types of this pool, which knows the extensions.
        given = descriptor.GetOptions()
        kind = self.pool.FindMessageTypeByName(given.DESCRIPTOR.full_name)
        options = GetMessageClass(kind).FromString(given.SerializeToString())
        found: dict[str, Any] = MessageToDict(options, preserving_proto_field_name=True, descriptor_pool=self.pool)
        return found


def _compile() -> FileDescriptorSet:
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).rglob("*.proto"))
    includes = [f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}", f"-I{files('grpc_tools') / '_proto'}"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors.binpb"
        arguments = ["--include_imports", "--include_source_info", f"--descriptor_set_out={output}"]
        if protoc.main(["protoc", *includes, *arguments, *sources]) != 0:
            message = "protoc rejected the sources; it has printed the reason"
            raise RuntimeError(message)
        return FileDescriptorSet.FromString(output.read_bytes())


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name and location.leading_comments:
            yield name, _paragraphs(location.leading_comments)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path of each declaration of a file, and its full name."""
    for index, message in enumerate(file.message_type):
        yield from _names_of_message((_MESSAGES, index), file.package, message)
    for index, enum in enumerate(file.enum_type):
        yield from _names_of((_ENUMS, index), file.package, enum, {_VALUES: enum.value})
    for index, service in enumerate(file.service):
        yield from _names_of((_SERVICES, index), file.package, service, {_METHODS: service.method})


def _names_of_message(path: tuple[int, ...], scope: str, message: Any) -> Iterator[tuple[tuple[int, ...], str]]:  # noqa: ANN401 - see `_names_of`
    yield from _names_of(path, scope, message, {_FIELDS: message.field})
    for index, inner in enumerate(message.nested_type):
        yield from _names_of_message((*path, _NESTED, index), f"{scope}.{message.name}", inner)
    for index, enum in enumerate(message.enum_type):
        yield from _names_of((*path, _NESTED_ENUMS, index), f"{scope}.{message.name}", enum, {_VALUES: enum.value})


def _names_of(
    path: tuple[int, ...],
    scope: str,
    declared: Any,  # noqa: ANN401 - a message, an enum or a service
    parts: dict[int, Sequence[Any]],
) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}.{declared.name}"
    yield path, name
    for number, elements in parts.items():
        yield from (((*path, number, index), f"{name}.{element.name}") for index, element in enumerate(elements))


def _paragraphs(comment: str) -> str:
    """Join the lines of each paragraph; lines that are indented more, such as lists, stay lines."""
    paragraphs = []
    for paragraph in comment.strip("\n").split("\n\n"):
        text = ""
        for line in paragraph.split("\n"):
            indented = line.startswith("  ")
            text += ("\n- " if indented and line.strip().startswith("`") else " ") + line.strip()
        paragraphs.append(text.strip())
    return "\n\n".join(paragraphs).strip()
