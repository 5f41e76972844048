"""check-manifests.py FOLDER OUT: whether the Kubernetes manifests in FOLDER fit together, which schemas
cannot say: every ConfigMap, Secret, Service, port and label that one names, another has. Writes the
configurations of server-min that it finds to OUT."""

import pathlib
import sys

import yaml

folder, out = map(pathlib.Path, sys.argv[1:])
listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
documents = [
    document
    for name in [*listed, "secrets.example.yaml"]
    for document in yaml.safe_load_all((folder / name).read_text())
    if document
]
problems = []


def complain(document, text):
    problems.append(f"{document['kind']} {document['metadata']['name']}: {text}")


def named(kind):
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


config_maps, secrets, services = named("ConfigMap"), named("Secret"), named("Service")
accounts = named("ServiceAccount")
workloads = [d for d in documents if d["kind"] in ("Deployment", "DaemonSet", "StatefulSet")]


def keys(secret):
    return {*secret.get("stringData", {}), *secret.get("data", {})}


def check_pod(document, spec):
    volumes = {}
    for volume in spec.get("volumes", []):
        volumes[volume["name"]] = volume
        if "configMap" in volume and volume["configMap"]["name"] not in config_maps:
            complain(document, f"no ConfigMap {volume['configMap']['name']}")
        if "secret" in volume and volume["secret"]["secretName"] not in secrets:
            complain(document, f"no Secret {volume['secret']['secretName']}")
    for claim in document["spec"].get("volumeClaimTemplates", []):
        volumes[claim["metadata"]["name"]] = claim
    account = spec.get("serviceAccountName")
    if account and account not in accounts:
        complain(document, f"no ServiceAccount {account}")
    used = set()
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                complain(document, f"{probe} asks the port {port}, which is not there")
        for mount in container.get("volumeMounts", []):
            used.add(mount["name"])
            if mount["name"] not in volumes:
                complain(document, f"no volume {mount['name']}")
        for source in container.get("envFrom", []):
            if source.get("secretRef", {}).get("name", next(iter(secrets))) not in secrets:
                complain(document, f"no Secret {source['secretRef']['name']}")
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and reference["key"] not in keys(secrets.get(reference["name"], {})):
                complain(document, f"no {reference['key']} in the Secret {reference['name']}")
        context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        for wanted in ("runAsNonRoot", "readOnlyRootFilesystem"):
            if context.get(wanted) is not True:
                complain(document, f"{container['name']} without {wanted}")
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            complain(document, f"{container['name']} without a bound on its memory")
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            complain(document, f"{container['image']} names no version")
    for volume in set(volumes) - used:
        complain(document, f"the volume {volume} is not used")


for workload in workloads:
    template = workload["spec"]["template"]
    labels = template["metadata"]["labels"]
    if not workload["spec"]["selector"]["matchLabels"].items() <= labels.items():
        complain(workload, "its selector does not fit its pods")
    check_pod(workload, template["spec"])

pods = [w["spec"]["template"] for w in workloads]


def selected(selector):
    return [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]


for service in services.values():
    chosen = selected(service["spec"]["selector"])
    if not chosen:
        complain(service, "selects no pods")
    for port in service["spec"]["ports"]:
        names = {p["name"] for pod in chosen for c in pod["spec"]["containers"] for p in c.get("ports", [])}
        if isinstance(port.get("targetPort"), str) and port["targetPort"] not in names:
            complain(service, f"no pod has the port {port['targetPort']}")
for kind in ("PodDisruptionBudget", "NetworkPolicy"):
    for document in named(kind).values():
        selector = document["spec"].get("selector") or document["spec"].get("podSelector") or {}
        if not selected(selector.get("matchLabels", {})):
            complain(document, "selects no pods")
for scaler in named("HorizontalPodAutoscaler").values():
    target = scaler["spec"]["scaleTargetRef"]
    if target["name"] not in named(target["kind"]):
        complain(scaler, f"no {target['kind']} {target['name']}")
    elif "replicas" in named(target["kind"])[target["name"]]["spec"]:
        complain(scaler, "its target counts replicas itself")
for workload in workloads:
    if workload["kind"] == "StatefulSet" and workload["spec"]["serviceName"] not in services:
        complain(workload, f"no Service {workload['spec']['serviceName']}")

for config_map in config_maps.values():
    for name, text in config_map["data"].items():
        if name.endswith(".toml"):
            (out / name).write_text(text)

print("\n".join(problems) or f"{len(documents)} documents fit together")
sys.exit(bool(problems))
