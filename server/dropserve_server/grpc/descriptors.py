"""What server reflection describes the services with."""

from __future__ import annotations

from types import ModuleType

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool


def pool_of(*stubs: ModuleType) -> DescriptorPool:
    """The descriptors of some stubs, which have them in different pools, and of what they import."""
    pool, added = DescriptorPool(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            pool.AddSerializedFile(file.serialized_pb)

    for module in stubs:
        add(module.DESCRIPTOR)
    return pool
