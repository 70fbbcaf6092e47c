"""The names of `pyxrt`: its enumerations, and the surface of the module."""

from collections.abc import Mapping
from enum import Enum


class xclBOSyncDirection(Enum):  # noqa: N801 (the bindings' name, like all below)
    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1


class ert_cmd_state(Enum):  # noqa: N801
    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9
    ERT_CMD_STATE_SKERROR = 10
    ERT_CMD_STATE_SKCRASHED = 11


class xrt_info_device(Enum):  # noqa: N801
    bdf = 0
    name = 5  # type: ignore[assignment]


class xrt_msg_level(Enum):  # noqa: N801
    emergency = 0
    alert = 1
    critical = 2
    error = 3
    warning = 4
    notice = 5
    info = 6
    debug = 7


class flags(Enum):  # noqa: N801
    normal = 0
    cacheable = 1 << 24
    device_only = 1 << 28
    host_only = 1 << 29
    p2p = 1 << 30
    svm = 1 << 27


SURFACE: Mapping[str, frozenset[str]] = {
    "XCL_BO_FLAGS_NONE": frozenset(),
    "enumerate_devices": frozenset(),
    "log_message": frozenset(),
    "uuid": frozenset({"to_string"}),
    "device": frozenset({"register_xclbin", "get_info"}),
    "xclbin": frozenset({"get_kernels", "get_uuid", "get_xsa_name", "get_mems", "xclbinkernel"}),
    "xclbin.xclbinkernel": frozenset({"get_name", "get_num_args"}),
    "hw_context": frozenset(),
    "kernel": frozenset({"__call__", "group_id"}),
    "bo": frozenset({"write", "read", "map", "sync", "size", "address", "flags", *flags.__members__}),
    "run": frozenset({"set_arg", "start", "wait", "state"}),
    "runlist": frozenset({"add", "execute", "wait"}),
    **{
        enum.__name__: frozenset(enum.__members__)
        for enum in (xclBOSyncDirection, ert_cmd_state, xrt_info_device, xrt_msg_level)
    },
}
"""Name in the module (dotted if nested) -> public attributes of that class; empty for functions and values."""
