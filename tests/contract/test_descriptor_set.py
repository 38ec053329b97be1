"""The file of descriptors that a release has, and where the code that is generated from it goes."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from tests.support.paths import ROOT

SERVICES = {"commerce.users.v1.UserService", "commerce.orders.v1.OrderService"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """What the file contains."""
    output = tmp_path_factory.mktemp("descriptors") / "commerce.binpb"
    subprocess.run([sys.executable, "-m", "clients.descriptors", output], check=True, cwd=ROOT)
    return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def test_it_has_everything_that_the_services_and_their_errors_need(files: list[FileDescriptorProto]) -> None:
    pool = DescriptorPool()
    for file in files:
        # Fails if a file lacks one that it imports.
        pool.Add(file)
    services = {f"{file.package}.{service.name}" for file in files for service in file.service}
    assert services == SERVICES
    for name in ("google.rpc.ErrorInfo", "google.rpc.BadRequest", "buf.validate.FieldRules"):
        pool.FindMessageTypeByName(name)  # raises if there is none
    protos = (ROOT / "protos").glob("commerce/**/*.proto")
    assert {str(path.relative_to(ROOT / "protos")) for path in protos} <= {file.name for file in files}


def test_it_has_the_comments_of_every_method(files: list[FileDescriptorProto]) -> None:
    methods = [method for file in files for service in file.service for method in service.method]
    commented = [
        location
        for file in files
        for location in file.source_code_info.location
        # 6: service, 2: method (descriptor.proto).
        if len(location.path) == 4 and (location.path[0], location.path[2]) == (6, 2) and location.leading_comments
    ]
    assert len(commented) == len(methods) > 40


def test_the_packages_for_go_and_java_follow_the_package_of_the_proto(files: list[FileDescriptorProto]) -> None:
    """`make breaking` does not compare these options, and another value would move all generated code."""
    ours = [file for file in files if file.package.startswith("commerce.")]
    assert len(ours) > 10
    for file in ours:
        _, area, version = file.package.split(".")
        assert file.options.go_package == f"example.com/commerce/{area}/{version};{area}{version}", file.name
        assert file.options.java_package == file.package, file.name
        assert file.options.java_multiple_files, file.name
