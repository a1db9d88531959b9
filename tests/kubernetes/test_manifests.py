"""The manifests pass Kubernetes' schemas, and name what Hesper's code and commands have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cluster import VERSION

from hesper.kubernetes.slices import DRIVER

PACKAGING = Path(__file__).parents[2] / "packaging" / "kubernetes"
RENDERED = {"plugin": PACKAGING / "plugin.yaml", "dra": PACKAGING / "dra.yaml"}


def chart(*arguments: str) -> str:
    """What Helm makes of the chart."""
    pytest.importorskip("helm_python", reason="Helm is in the test group on Linux, x86_64")
    command = [sys.executable, str(Path(__file__).with_name("chart.py")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("driver", RENDERED)
def test_the_chart_is_what_lies_beside_it(driver: str) -> None:
    assert chart(driver) == RENDERED[driver].read_text()


def test_helm_has_nothing_to_say_against_the_chart() -> None:
    assert chart("lint") == "[]\n"


def test_the_chart_s_values_are_followed() -> None:
    values = {
        "image": "registry/hesper:1",
        "shares": 3,
        "memory": "16G",
        "limits": ["memory=4G", "devices=2"],
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "privileged": False,
        "kubelet": "/srv/kubelet",
    }
    found = [*yaml.safe_load_all(chart("dra", json.dumps(values)))]
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    (daemons,) = [each for each in found if each["kind"] == "DaemonSet"]
    spec = daemons["spec"]["template"]["spec"]
    server, driver = spec["containers"]
    assert server["args"][-2:] == ["--limit=memory=4G", "--limit=devices=2"]
    assert server["securityContext"] == {"privileged": False}
    assert {"--shares=3", "--memory=all=16G", "--kubelet=/srv/kubelet"} <= set(driver["args"])
    assert spec["tolerations"] == values["tolerations"]
    assert {each["image"] for each in spec["initContainers"] + spec["containers"]} == {
        "registry/hesper:1"
    }


def test_classes_have_sockets_devices_and_capacities() -> None:
    gold = {"name": "gold", "options": "memory=8G,weight=4", "memory": "32G/8G", "weight": "100/4"}
    values = {"classes": [gold, {"name": "iron", "options": "memory=2G"}], "weight": "50"}
    for driver in RENDERED:
        found = [*yaml.safe_load_all(chart(driver, json.dumps(values)))]
        for manifest in found:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        (daemons,) = [each for each in found if each["kind"] == "DaemonSet"]
        spec = daemons["spec"]["template"]["spec"]
        (cdi,) = spec["initContainers"]
        assert cdi["args"][-2:] == [
            "--class=gold=/run/hesper/gold/vtest",
            "--class=iron=/run/hesper/iron/vtest",
        ]
        server, plugin = spec["containers"]
        assert server["args"][-4:] == [
            "--class=gold:memory=8G,weight=4",
            "--socket=/run/hesper/gold/vtest:class=gold",
            "--class=iron:memory=2G",
            "--socket=/run/hesper/iron/vtest:class=iron",
        ]
        told = ["--weight=all=50", "--memory=gold=32G/8G", "--weight=gold=100/4"]
        given = [each for each in plugin["args"] if each.startswith(("--weight", "--memory"))]
        assert given == (told if driver == "dra" else [])
        for container in (cdi, server, plugin):
            script = "import sys; from hesper.cli import main; sys.exit(main())"
            command = [sys.executable, "-c", script, *container["args"], "--help"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "values",
    [
        {"driver": "plugn"},
        {"shares": 0},
        {"memory": "lots"},
        {"clases": []},
        {"classes": [{"name": "Gold"}]},
        {"classes": [{"name": "all"}]},
        {"classes": [{"name": "gold", "wieght": "4"}]},
        {"kubelet": "var/lib"},
    ],
    ids=str,
)
def test_helm_refuses_values_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        chart("dra", json.dumps(values))
    assert "schema" in str(failed.value.stderr)


def manifests(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@pytest.mark.parametrize(
    "path",
    [*RENDERED.values(), *sorted((PACKAGING / "examples").glob("*.yaml"))],
    ids=lambda p: p.name,
)
def test_a_manifest_is_one(path: Path) -> None:
    found = manifests(path)
    assert found
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    if "dra" not in path.name:
        for manifest in found:
            kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_a_mistake_would_be_found() -> None:
    (pod,) = manifests(PACKAGING / "examples" / "plugin.yaml")
    pod["spec"]["containers"][0]["comand"] = ["x"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.parametrize("driver", RENDERED)
def test_the_daemon_set_s_commands_are_hesper_s(driver: str) -> None:
    (daemons,) = [each for each in manifests(RENDERED[driver]) if each["kind"] == "DaemonSet"]
    spec = daemons["spec"]["template"]["spec"]
    containers = {each["name"]: each for each in spec["initContainers"] + spec["containers"]}
    assert set(containers) == {"cdi", "server", "driver"}
    for container in containers.values():
        # Options that there are not end the command line before anything is done.
        arguments = [*container["args"], "--help"]
        script = "import sys; from hesper.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for option in (each.partition("=")[0] for each in container["args"]):
            assert not option.startswith("--no") or "inject" in done.stdout
            assert option.startswith("--no") or not option.startswith("--") or option in done.stdout
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in spec["volumes"]}
    assert containers["driver"]["args"][:2] == ["kubernetes", driver]
    # The server, the CDI file and the driver speak of one socket, at the same path on the node.
    (socket,) = [each for each in containers["cdi"]["args"] if each.endswith("vtest")]
    assert f"--socket={socket}" in containers["server"]["args"]
    for name in ("server", "driver"):
        mounts = {each["name"]: each["mountPath"] for each in containers[name]["volumeMounts"]}
        assert socket.startswith(mounts["sockets"])
        paths = {each["name"]: each["hostPath"]["path"] for each in spec["volumes"]}
        assert all(paths[volume] == path for volume, path in mounts.items())


def test_dra_has_what_it_asks_the_api_server_for() -> None:
    by_kind = {each["kind"]: each for each in manifests(RENDERED["dra"])}
    rules = {
        (group, resource): set(rule["verbs"])
        for rule in by_kind["ClusterRole"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules == {
        ("resource.k8s.io", "resourceclaims"): {"get"},
        ("resource.k8s.io", "resourceslices"): {"list", "create", "update", "delete"},
        ("", "nodes"): {"get"},
    }
    (selector,) = by_kind["DeviceClass"]["spec"]["selectors"]
    assert selector["cel"]["expression"] == f'device.driver == "{DRIVER}"'
    assert {each["kind"] for each in manifests(RENDERED["plugin"])} == {
        "DaemonSet",
        "ServiceAccount",
    }
