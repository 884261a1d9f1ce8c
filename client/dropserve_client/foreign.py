"""The few messages of other people's contracts that the SDK reads and writes.

`google.rpc.Status` with `BadRequest` and `RetryInfo` (error details, in the trailing metadata
``grpc-status-details-bin``) and `grpc.health.v1` come from packages which the base installation does
not have. Declaring their fields here, in a descriptor pool of our own, clashes with neither package
where it is installed.

Sources: googleapis ``google/rpc/status.proto`` and ``error_details.proto``; grpc-proto
``grpc/health/v1/health.proto``; protobuf ``google/protobuf/duration.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

_Kind: TypeAlias = "FieldDescriptorProto.Type.ValueType | str"
_INT32: Final = FieldDescriptorProto.TYPE_INT32
_INT64: Final = FieldDescriptorProto.TYPE_INT64
_STRING: Final = FieldDescriptorProto.TYPE_STRING
_BYTES: Final = FieldDescriptorProto.TYPE_BYTES
_BAD_REQUEST: Final = "google.rpc.BadRequest"
_RETRY_INFO: Final = "google.rpc.RetryInfo"
_SERVING: Final = 1


def violated_field(trailing_metadata: Iterable[Any] | None) -> str:
    """The first field that the call's BadRequest details name; empty where there are none."""
    for bad_request in _details(trailing_metadata, _BAD_REQUEST):
        for violation in bad_request.field_violations:
            return str(violation.field)
    return ""


def retry_seconds(trailing_metadata: Iterable[Any] | None) -> float | None:
    """How long the call's RetryInfo details ask to wait until it is made again; None: there are none."""
    for retry_info in _details(trailing_metadata, _RETRY_INFO):
        for delay in retry_info.retry_delay:
            return max(0.0, float(delay.seconds) + float(delay.nanos) / 1e9)
    return None


def health_check_request(service: str) -> bytes:
    """A serialised grpc.health.v1.HealthCheckRequest."""
    request = _message("grpc.health.v1.HealthCheckRequest")(service=service)
    return bytes(request.SerializeToString())


def is_serving(health_check_response: bytes) -> bool:
    """Whether a serialised grpc.health.v1.HealthCheckResponse says SERVING."""
    try:
        response = _message("grpc.health.v1.HealthCheckResponse").FromString(health_check_response)
    except DecodeError:
        return False
    return bool(response.status == _SERVING)


def _details(trailing_metadata: Iterable[Any] | None, kind: str) -> Iterator[Any]:
    """The details of this kind that a call ended with, as far as they can be understood."""
    for key, value in trailing_metadata or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                for detail in _message("google.rpc.Status").FromString(value).details:
                    if detail.type_url.endswith("/" + kind):
                        yield _message(kind).FromString(detail.value)


@cache
def _message(full_name: str) -> Any:
    return GetMessageClass(_pool().FindMessageTypeByName(full_name))


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    rpc = FileDescriptorProto(name="rpc", package="google.rpc", syntax="proto3")
    _declare(rpc, "Any", type_url=(1, _STRING), value=(2, _BYTES))
    _declare(rpc, "Status", details=(3, ".google.rpc.Any"))
    _declare(rpc, "FieldViolation", field=(1, _STRING))
    _declare(rpc, "BadRequest", field_violations=(1, ".google.rpc.FieldViolation"))
    _declare(rpc, "Duration", seconds=(1, _INT64), nanos=(2, _INT32))
    _declare(rpc, "RetryInfo", retry_delay=(1, ".google.rpc.Duration"))
    health = FileDescriptorProto(name="health", package="grpc.health.v1", syntax="proto3")
    _declare(health, "HealthCheckRequest", service=(1, _STRING))
    # On the wire an enum is an int32.
    _declare(health, "HealthCheckResponse", status=(1, _INT32))
    for file in (rpc, health):
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _declare(file: FileDescriptorProto, name: str, **fields: tuple[int, _Kind]) -> None:
    """Add a message; a field whose type is a name is a list of such messages, or a single one."""
    message = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        if isinstance(kind, str):
            message.field.add(
                name=field,
                number=number,
                type=FieldDescriptorProto.TYPE_MESSAGE,
                label=FieldDescriptorProto.LABEL_REPEATED,
                type_name=kind,
            )
        else:
            message.field.add(name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
