"""`tilewhisper npu-check`: parts found and missing, steps, the report, and bad input."""

import json
import platform
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna import artifacts, opening, probe
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.pyxrt import Faults, make
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.npu_check import machine, parts
from tilewhisper.kernels.xdna.npu_check.all_steps import STEP_NAMES, plans_of_check
from tilewhisper.kernels.xdna.npu_check.privacy import without_private_data
from tilewhisper.kernels.xdna.tiling import plan

EXAMINE = """System Configuration
  OS Name              : Linux
  Release              : 6.14.0-29-generic
  BIOS Version         : 1.03

XRT
  Version              : {xrt}
  Branch               : HEAD
  {driver} : 2.21.75_20260330, 7c1d273ef9946848a9f236f1216cfda10d9465cb
  NPU Firmware Version : 1.5.5.391

Device(s) Present
|BDF             |Name          |
|----------------|--------------|
|[0000:67:00.1]  |NPU Phoenix   |
"""


def rows(text):
    """The table of parts: name -> (state, details on one line)."""
    heading, *lines = text[text.index("part ") :].split("\n\n")[0].splitlines()
    state, details = heading.index("state"), heading.index("details")
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        if name := line[:state].strip():
            found[name] = (line[state:details].strip(), line[details:].strip())
        else:
            name, (known, before) = list(found.items())[-1]
            found[name] = (known, f"{before}; {line.strip()}")
    return found


@pytest.fixture
def no_npu(monkeypatch, tmp_path):
    """A machine without any part."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(probe, "ROOT", root)
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return root


def put(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def laptop(no_npu, monkeypatch, tmp_path):
    """A Phoenix laptop with all parts, whose `pyxrt` and designs are the emulated device's. Returns its file system."""
    put(
        no_npu,
        {
            "sys/bus/pci/devices/0000:67:00.1/vendor": "0x1022\n",
            "sys/bus/pci/devices/0000:67:00.1/device": "0x1502\n",
            f"{probe.DRIVER}/0000:67:00.1/fw_version": "1.5.5.391\n",
            "dev/accel/accel0": "",
            "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=1b2c quiet",
            "proc/self/status": "CapEff:\t0000000000004000\n",
            "opt/xilinx/xrt/version.json": '{"BUILD_VERSION": "2.21.75"}',
        },
    )
    monkeypatch.setattr(platform, "release", lambda: "6.14.0-29-generic")
    monkeypatch.setattr(probe, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pyxrt", make(XDNA1))
    designs = tmp_path / "kernels"
    build([cut for _, cut in plans_of_check(XDNA1)], designs)
    monkeypatch.setattr(opening, "KERNELS_FOLDER", designs)
    # The emulated device's streams are not the real device's, which the loader compares.
    monkeypatch.setattr(opening.built_designs, "find", artifacts.find)
    return no_npu


def xrt_smi(tmp_path, text, monkeypatch):
    program = tmp_path / "bin" / "xrt-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n[ \"$1\" = examine ] && cat <<'E'\n{text}\nE\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_the_emulated_device_passes(tilewhisper):
    finished = tilewhisper("npu-check", "--npu", "emulated")
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.startswith("The NPU is emulated")
    for name in STEP_NAMES:
        assert f"\n{name} " in finished.out
    assert finished.out.count(" passed in ") == len(STEP_NAMES)
    assert finished.out.endswith("All results are right.\n")


def test_without_an_npu_every_missing_part_is_named_and_the_first_remedy_is_the_error(tilewhisper, no_npu):
    finished = tilewhisper("npu-check")
    assert finished.status == 2
    assert finished.errors == [
        "tilewhisper: error: use a Ryzen AI computer with its NPU enabled in the BIOS: "
        "no AMD NPU on the PCI bus (1022:1502 or 1022:17f0)"
    ]
    table = rows(finished.out)
    assert {name for name, (state, _) in table.items() if state == "missing"} == {
        "NPU",
        "driver",
        "device node",
        "pyxrt",
    }
    assert "amdxdna" in table["driver"][1]
    assert "install XRT" in table["pyxrt"][1]
    assert "passed" not in finished.out


def test_a_laptop_with_all_parts_passes(tilewhisper, laptop, tmp_path, monkeypatch):
    xrt_smi(tmp_path, EXAMINE.format(xrt="2.21.75", driver="amdxdna             "), monkeypatch)
    finished = tilewhisper("npu-check")
    assert finished.status == 0, finished.out + finished.err
    table = rows(finished.out)
    assert {state for state, _ in table.values()} == {"ok"}
    assert table["NPU"][1] == "PCI 1022:1502: Phoenix and Hawk Point, AIE2"
    assert table["kernel"][1] == "Linux 6.14.0-29-generic"
    assert table["driver"][1] == "amdxdna 2.21.75_20260330, 7c1d273ef9946848a9f236f1216cfda10d9465cb"
    assert table["firmware"][1] == "1.5.5.391"
    assert "accel0 (group " in table["device node"][1]
    assert table["locked memory"][1] == "unlimited"
    assert table["XRT"][1] == "2.21.75; xrt-smi lists NPU Phoenix"
    assert table["device"][1] == "NPU Phoenix: profile xdna1 (Phoenix and Hawk Point, AIE2)"
    assert table["designs"][1].startswith("5 for xdna1 in ")
    assert table["contexts"][1] == "6 of 6 free"
    assert "emulated" not in finished.out


def limit_memory(root, monkeypatch):
    import resource

    put(root, {"proc/self/status": "CapEff:\t0000000000000000\n"})
    monkeypatch.setattr(resource, "getrlimit", lambda which: (8_388_608, 8_388_608))


def forbid(root, monkeypatch):
    monkeypatch.setattr(probe.os, "access", lambda path, mode: False)


MISSING = {
    "another array": (
        lambda root, _: put(root, {"sys/bus/pci/devices/0000:67:00.1/device": "0x17f1\n"}),
        ("NPU", "missing", "neither AIE2 nor AIE2P"),
    ),
    "iommu": (
        lambda root, _: put(root, {"proc/cmdline": "quiet amd_iommu=off"}),
        ("kernel", "missing", "remove amd_iommu=off"),
    ),
    "firmware": (
        lambda root, _: put(root, {f"{probe.DRIVER}/0000:67:00.1/fw_version": "1.0.0.63"}),
        ("firmware", "warning", "install linux-firmware"),
    ),
    "no firmware": (
        lambda root, _: (root / probe.DRIVER / "0000:67:00.1/fw_version").unlink(),
        ("firmware", "warning", "put xrt-smi on PATH"),
    ),
    "permission": (forbid, ("device node", "missing", "group render")),
    "no node": (
        lambda root, _: (root / "dev/accel/accel0").unlink(),
        ("device node", "missing", "there is no device node"),
    ),
    "memlock": (limit_memory, ("locked memory", "warning", "8,192 KiB")),
    "old XRT": (
        lambda root, _: put(root, {"opt/xilinx/xrt/version.json": '{"BUILD_VERSION": "2.19.0"}'}),
        ("XRT", "warning", "install XRT 2.20 or newer"),
    ),
    "unknown XRT": (
        lambda root, _: (root / "opt/xilinx/xrt/version.json").unlink(),
        ("XRT", "warning", "put xrt-smi on PATH"),
    ),
    "no device": (
        lambda _, patch: patch.setitem(sys.modules, "pyxrt", make(XDNA1, faults=Faults(no_device=True))),
        ("device", "missing", "XRT finds no NPU"),
    ),
    "contexts": (
        lambda _, patch: patch.setitem(sys.modules, "pyxrt", make(XDNA1, faults=Faults(out_of_contexts=True))),
        ("contexts", "missing", "close another program"),
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_part_stops_the_check_and_a_warning_does_not(name, tilewhisper, laptop, monkeypatch):
    break_it, (part, state, text) = MISSING[name]
    break_it(laptop, monkeypatch)
    finished = tilewhisper("npu-check")
    found, details = rows(finished.out)[part]
    assert found == state
    assert text in details
    assert finished.status == (2 if state == "missing" else 0)
    assert (" passed in " in finished.out) == (state == "warning")
    assert len(finished.errors) == (state == "missing")


def test_an_old_kernel_without_the_driver(tilewhisper, no_npu, monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-38-generic")
    assert "install Linux 6.14 or newer" in rows(tilewhisper("npu-check").out)["kernel"][1]


def test_an_unknown_device_can_be_named(tilewhisper, laptop, monkeypatch):
    pyxrt = make(XDNA1)
    monkeypatch.setattr(pyxrt.device, "get_info", lambda self, key: "NPU Gorgon Point 9")
    monkeypatch.setitem(sys.modules, "pyxrt", pyxrt)
    finished = tilewhisper("npu-check")
    assert finished.status == 2
    assert "unknown NPU 'NPU Gorgon Point 9'" in finished.errors[0]
    assert "continue with --npu xdna2" in finished.errors[0]
    assert tilewhisper("npu-check", "--npu", "xdna1").status == 0


def test_missing_designs_name_the_command_that_builds_them(tilewhisper, laptop, tmp_path):
    (tmp_path / "none").mkdir()
    finished = tilewhisper("npu-check", "--npu_kernels", tmp_path / "none")
    assert finished.status == 2
    assert "run python scripts/build_kernels.py --check --device xdna1 --compile: one core" in finished.errors[0]
    assert rows(finished.out)["designs"][0] == "warning"


def test_a_hang_has_its_step_timeout_and_remedy(tilewhisper):
    finished = tilewhisper("npu-check", "--npu", "emulated", "--npu_fault", "hang:3", "--timeout", "250")
    assert finished.status == 2
    assert "one core " in finished.out.partition(" passed in ")[0]
    assert "error: the NPU did not answer within 250 ms (TIMEOUT)" in finished.out
    assert finished.errors[0].startswith("tilewhisper: error: wait until the driver has reset the array")
    assert "one column: hung" in finished.errors[0]
    assert "not run" in finished.out


def test_a_wrong_result_shows_the_first_element_and_the_cause(tilewhisper, laptop, monkeypatch):
    pyxrt = make(XDNA1)
    monkeypatch.setitem(sys.modules, "pyxrt", pyxrt)
    monkeypatch.setattr(pyxrt.emulation.engine, "execute", lambda program, stream, a, b, c: c.fill(0))
    finished = tilewhisper("npu-check")
    assert finished.status == 2
    assert "4,096 of 4,096 elements are wrong, the first in row 0, column 0: expected " in finished.out
    assert "found 0, allowed error " in finished.out
    assert "likely cause: all elements are zero" in finished.out
    assert "one core: wrong: all elements are zero" in finished.errors[0]


@pytest.mark.parametrize("driver", ["amdxdna             ", "amdxdna Version     ", "NPU Driver Version  "])
def test_the_output_of_xrt_smi_is_read(driver):
    found = machine.parse_xrt_smi(EXAMINE.format(xrt="2.21.75", driver=driver))
    assert (found.xrt, found.firmware, found.devices) == ("2.21.75", "1.5.5.391", ("NPU Phoenix",))
    assert found.driver.startswith("2.21.75_20260330")
    assert machine.parse_xrt_smi("  0 devices found\n") == machine.XrtSmi()


def test_the_report_has_everything_and_no_private_data(tilewhisper, laptop, tmp_path, monkeypatch):
    home = tmp_path / "home" / "ada.lovelace"
    secrets = ["ada.lovelace", "analytical-engine", "SN-4711-ABC", "1b2cdeadbeef4711", str(home), "charles"]
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "ada.lovelace")
    monkeypatch.setattr(socket, "gethostname", lambda: "analytical-engine.example")
    put(laptop, {"sys/class/dmi/id/product_serial": "SN-4711-ABC\n", "etc/machine-id": "1b2cdeadbeef4711\n"})
    planted = (
        f"2.21.75 of {home}/xrt for ada.lovelace on Analytical-Engine, SN-4711-ABC 1b2cdeadbeef4711, "
        r"serial number: X9Y8Z7, /home/charles/kernels, C:\Users\charles\kernels, 00:1a:2b:3c:4d:5e, "
        r"12345678-1234-1234-1234-123456789abc"
    )
    xrt_smi(tmp_path, EXAMINE.format(xrt=planted, driver="amdxdna             "), monkeypatch)
    designs = home / "kernels"
    build([cut for _, cut in plans_of_check(XDNA1)], designs)
    report = tmp_path / "report.json"
    finished = tilewhisper("npu-check", "--report", report, "--npu_kernels", designs)
    assert finished.status == 0, finished.err
    assert str(designs) in finished.out, "the screen is the user's own"
    text = report.read_text()
    for secret in (*secrets, "X9Y8Z7", "00:1a:2b:3c:4d:5e", "12345678-1234"):
        assert secret.casefold() not in text.casefold(), secret
    content = json.loads(text)
    assert [step["state"] for step in content["steps"]] == ["passed"] * len(STEP_NAMES)
    assert {part["name"] for part in content["parts"]} >= {"NPU", "XRT", "device", "contexts"}
    assert content["system"]["packages"]["tilewhisper"]
    assert content["screen"][-1] == "All results are right."
    assert any("in ~/kernels" in line for line in content["screen"])


def test_public_words_stay_in_the_report(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("USER", "root")
    monkeypatch.setattr(socket, "gethostname", lambda: "npu")
    cleaned = without_private_data({"a": "a root node of npu and npu_kernels in /root/x and /rooted"})
    assert cleaned == {"a": "a root node of <host> and npu_kernels in ~/x and /rooted"}


def test_the_report_of_a_failure_is_written(tilewhisper, no_npu, tmp_path):
    report = tmp_path / "report.json"
    assert tilewhisper("npu-check", "--report", report).status == 2
    content = json.loads(report.read_text())
    assert content["steps"] == []
    assert content["screen"][0].startswith("tilewhisper: error: use a Ryzen AI computer")


@pytest.fixture
def files(tmp_path):
    """A design of the emulated device as the files of another tool."""
    cut = plan(ProductShape(1, 256, 64, 128), find_geometry("whole-array", XDNA1), XDNA1)
    build([cut], tmp_path)
    found = artifacts.find(tmp_path, cut)
    return ["--xclbin", found.xclbin, "--instructions", found.instructions]


def test_a_design_of_another_tool(tilewhisper, files):
    run = partial(tilewhisper, "npu-check", "--npu", "emulated", *files, "--shape")
    finished = run("256,64,128")
    assert finished.status == 0
    assert "other design  (256, 64) x (64, 128), bf16 -> f32 " in finished.out
    assert "one core" not in finished.out
    wrong = run("256,64,192")
    assert wrong.status == 2
    assert "never written" in wrong.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--timeout", "0"], "--timeout must be >= 1, got 0"),
        (["--npu_fault", "hang:1"], "add --npu emulated"),
        (["--npu", "emulated", "--npu_fault", "hang"], "cannot read the fault 'hang'"),
        (["--npu_kernels", "no/such/folder"], "--npu_kernels no/such/folder: there is no such folder"),
        (["--report", "no/such/report.json"], "create it first"),
        (["--xclbin", "x.xclbin"], "missing: --instructions, --shape"),
        (["--dtypes", "bf16:bf16"], "add --xclbin, --instructions and --shape"),
        (["--xclbin", "x", "--instructions", "y", "--shape", "1,2"], "cannot read --shape '1,2'"),
        (["--xclbin", "no.xclbin", "--instructions", "y", "--shape", "1,2,3"], "cannot read no.xclbin: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tilewhisper, arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = tilewhisper("npu-check", *arguments)
    assert finished.status == 2
    (line,) = finished.err.splitlines()
    assert reason in line
    assert finished.out == ""


def test_an_unknown_dtype_lists_the_known_ones(tilewhisper):
    finished = tilewhisper("npu-check", "--dtypes", "int8:int32")
    assert finished.status == 2
    assert "'bf16:f32', 'bf16:bf16'" in finished.err


def test_a_report_does_not_overwrite_an_input(tilewhisper, files):
    before = Path(files[1]).read_bytes()
    finished = tilewhisper("npu-check", "--npu", "emulated", *files, "--shape", "256,64,128", "--report", files[1])
    assert finished.status == 2
    assert "would overwrite an input" in finished.errors[0]
    assert Path(files[1]).read_bytes() == before
