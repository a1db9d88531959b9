"""The messages of a kubelet's plugin APIs, made from what their definitions say of each field.

Source: Kubernetes' `pkg/apis/deviceplugin/v1beta1`, `pkg/apis/pluginregistration/v1` and
`pkg/apis/dra/v1` and `v1beta1` of the kubelet's module, of which the last two have the same
messages. Only fields that Hesper reads or writes are here; protobuf keeps others as they come.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}

DEVICE_PLUGIN = "v1beta1"
REGISTRATION = "pluginregistration"
DRA_V1 = "k8s.io.kubelet.pkg.apis.dra.v1"
DRA_V1BETA1 = "k8s.io.kubelet.pkg.apis.dra.v1beta1"

# Name of a field, its number, its type; `*` stands before what is repeated, `map` before a message
# that texts lead to.
_DEVICE_PLUGIN = {
    "Empty": [],
    "DevicePluginOptions": [
        ("pre_start_required", 1, "bool"),
        ("get_preferred_allocation_available", 2, "bool"),
    ],
    "RegisterRequest": [
        ("version", 1, "string"),
        ("endpoint", 2, "string"),
        ("resource_name", 3, "string"),
        ("options", 4, "DevicePluginOptions"),
    ],
    "Device": [("ID", 1, "string"), ("health", 2, "string")],
    "ListAndWatchResponse": [("devices", 1, "*Device")],
    "ContainerAllocateRequest": [("devices_ids", 1, "*string")],
    "AllocateRequest": [("container_requests", 1, "*ContainerAllocateRequest")],
    "CDIDevice": [("name", 1, "string")],
    "ContainerAllocateResponse": [("cdi_devices", 5, "*CDIDevice")],
    "AllocateResponse": [("container_responses", 1, "*ContainerAllocateResponse")],
}
_REGISTRATION = {
    "PluginInfo": [
        ("type", 1, "string"),
        ("name", 2, "string"),
        ("endpoint", 3, "string"),
        ("supported_versions", 4, "*string"),
    ],
    "RegistrationStatus": [("plugin_registered", 1, "bool"), ("error", 2, "string")],
    "RegistrationStatusResponse": [],
    "InfoRequest": [],
}
_DRA = {
    "Claim": [("namespace", 1, "string"), ("uid", 2, "string"), ("name", 3, "string")],
    "Device": [
        ("request_names", 1, "*string"),
        ("pool_name", 2, "string"),
        ("device_name", 3, "string"),
        ("cdi_device_ids", 4, "*string"),
    ],
    "NodePrepareResourcesRequest": [("claims", 1, "*Claim")],
    "NodePrepareResourceResponse": [("devices", 1, "*Device"), ("error", 2, "string")],
    "NodePrepareResourcesResponse": [("claims", 1, "map NodePrepareResourceResponse")],
    "NodeUnprepareResourcesRequest": [("claims", 1, "*Claim")],
    "NodeUnprepareResourceResponse": [("error", 1, "string")],
    "NodeUnprepareResourcesResponse": [("claims", 1, "map NodeUnprepareResourceResponse")],
}
_PACKAGES: dict[str, dict[str, list[tuple[str, int, str]]]] = {
    DEVICE_PLUGIN: _DEVICE_PLUGIN,
    REGISTRATION: _REGISTRATION,
    DRA_V1: _DRA,
    DRA_V1BETA1: _DRA,
}


def message(package: str, name: str) -> Any:
    """The class of a message.  Raises `KeyError` for one that there is not."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{package}.{name}"))


def _describe(package: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"hesper/{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in _PACKAGES[package].items():
        described = file.message_type.add(name=name)
        for field in fields:
            _add_field(package, described, *field)
    return file


def _add_field(package: str, described: Any, name: str, number: int, kind: str) -> None:
    is_map = kind.startswith("map ")
    kind = kind.removeprefix("map ")
    is_repeated = is_map or kind.startswith("*")
    kind = kind.removeprefix("*")
    if is_map:
        # On the wire a map is a repeated message of a key and a value.
        entry = described.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(package, entry, "key", 1, "string")
        _add_field(package, entry, "value", 2, kind)
        kind = f"{described.name}.{entry.name}"
    field = described.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
    if kind in _KINDS:
        field.type = _KINDS[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"


_pool = descriptor_pool.DescriptorPool()
for _package in _PACKAGES:
    _pool.Add(_describe(_package))
