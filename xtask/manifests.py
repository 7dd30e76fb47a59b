"""Checks rendered manifests beyond their schemas: python manifests.py MUSTER OVERLAY=FILE…

MUSTER is the program, which knows its flags and variables.
"""

import re
import subprocess
import sys

import yaml

PARTS = ["gateway", "identity", "group", "approver"]
# Each service's pool, and two connections for LISTEN and NOTIFY.
CONNECTIONS = 18
# What `postgres` has in the development overlay; a managed one needs as many.
MAX_CONNECTIONS = 200
# Drain delay, drain limit and a little.
GRACE = 30
# Read by the program beside its flags.
OTHER_VARIABLES = {"MUSTER_LOG", "MUSTER_LOG_FORMAT"}

problems = []


def check(holds, says):
    if not holds:
        problems.append(says)


def help_of(program, part):
    return subprocess.run([program, part, "--help"], capture_output=True, text=True, check=True).stdout


def pods(documents):
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield document, document["spec"]["template"]


def selected(selector, labels):
    return selector and all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())


def check_pod(name, template):
    spec = template["spec"]
    security = spec.get("securityContext", {})
    check(security.get("runAsNonRoot") is True, f"{name} may run as root")
    check(security.get("runAsUser", 0) > 0, f"{name} says no user")
    check(security.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{name} has no seccomp")
    check(spec.get("automountServiceAccountToken") is False, f"{name} gets a token of the cluster")
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        check(own.get("readOnlyRootFilesystem") is True, f"{name} may write its root")
        check(own.get("allowPrivilegeEscalation") is False, f"{name} may gain privileges")
        check(own.get("capabilities", {}).get("drop") == ["ALL"], f"{name} keeps capabilities")
        check("memory" in container.get("resources", {}).get("limits", {}), f"{name} has no memory limit")
        check("cpu" in container.get("resources", {}).get("requests", {}), f"{name} requests no CPU")
        for variable in container.get("env", []):
            secret = re.search("PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL", variable["name"])
            in_file = variable["name"].endswith("_FILE")
            check(in_file or not secret, f"{name} has the secret {variable['name']} as a variable")
            check("secretKeyRef" not in str(variable), f"{name} has a secret as a variable")
        check("secretRef" not in str(container.get("envFrom", [])), f"{name} has secrets as variables")


def check_part(part, documents, by_kind):
    deployment = by_kind("Deployment", part)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    spec = deployment["spec"]["template"]["spec"]
    container = spec["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container.get(probe, {}).get("httpGet", {}).get("path")
        check(path == ("/readyz" if probe == "readinessProbe" else "/livez"), f"{part}: {probe} asks {path}")
    check(spec.get("terminationGracePeriodSeconds", 0) >= GRACE, f"{part} is killed while it drains")
    check(len(spec.get("topologySpreadConstraints", [])) >= 2, f"{part} is not spread")
    check(spec.get("serviceAccountName") == part, f"{part} has no account of its own")
    budget = by_kind("PodDisruptionBudget", part)["spec"]
    check(budget.get("maxUnavailable") == 1 and selected(budget["selector"], labels), f"{part}: its budget")
    scaler = by_kind("HorizontalPodAutoscaler", part)["spec"]
    check(scaler["minReplicas"] >= 2 and scaler["scaleTargetRef"]["name"] == part, f"{part}: its scaler")
    check("replicas" not in deployment["spec"], f"{part}: a deployment sets back what the scaler does")
    service = by_kind("Service", part)["spec"]
    check(all(labels.get(k) == v for k, v in service["selector"].items()), f"{part}: its service")
    check(part == "gateway" or service.get("clusterIP") == "None", f"{part}: callers see one address")
    policies = [d for d in documents if d["kind"] == "NetworkPolicy"]
    own = [p for p in policies if selected(p["spec"]["podSelector"], labels) and p["spec"]["podSelector"]]
    check(own, f"{part} has no network policy")
    check("configMapRef" in str(container.get("envFrom")), f"{part} has no settings")
    by_kind("ServiceAccount", part)


def check_flags(program, name, args):
    part = args[0]
    known = set(re.findall(r"--([a-z-]+)", help_of(program, part)))
    for argument in args[1:]:
        flag = argument.removeprefix("--").split("=")[0]
        check(argument.startswith("--") and flag in known, f"{name}: muster {part} knows no {argument}")


def main():
    program, *rendered = sys.argv[1:]
    variables = set(OTHER_VARIABLES)
    for part in [*PARTS, "migrate"]:
        variables |= set(re.findall(r"\[env: ([A-Z_]+)", help_of(program, part)))
    for overlay in rendered:
        overlay, file = overlay.split("=", 1)
        with open(file) as text:
            documents = [document for document in yaml.safe_load_all(text) if document]

        def by_kind(kind, name):
            found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
            check(len(found) == 1, f"{overlay}: {len(found)} {kind} {name}")
            return found[0]

        for document, template in pods(documents):
            name = f"{overlay}: {document['kind']} {document['metadata']['name']}"
            check_pod(name, template)
            for container in template["spec"]["containers"]:
                if container["name"] == "muster":
                    check_flags(program, name, container["args"])
        for part in PARTS:
            check_part(part, documents, by_kind)
        denied = by_kind("NetworkPolicy", "default-deny")["spec"]
        check(denied["podSelector"] == {} and set(denied["policyTypes"]) == {"Ingress", "Egress"},
              f"{overlay}: what no policy lets is let")
        check("ingress" not in denied and "egress" not in denied, f"{overlay}: the default lets something")
        namespace = by_kind("Namespace", "muster")["metadata"]["labels"]
        check(namespace.get("pod-security.kubernetes.io/enforce") == "restricted", f"{overlay}: pod security")
        replicas = sum(by_kind("HorizontalPodAutoscaler", part)["spec"]["maxReplicas"]
                       for part in PARTS if part != "gateway")
        check(replicas * CONNECTIONS < MAX_CONNECTIONS,
              f"{overlay}: {replicas} services may open {replicas * CONNECTIONS} connections")
        for document in documents:
            if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("muster-settings"):
                for variable in document["data"]:
                    known = variable in variables or variable.startswith("OTEL_")
                    check(known, f"{overlay}: muster knows no variable {variable}")
            production = overlay == "production"
            check(not (production and document["kind"] == "Secret"), f"{overlay}: a secret in the open")
        ingress = by_kind("Ingress", "gateway")["spec"]
        hosts = {rule["host"] for rule in ingress["rules"]}
        check(hosts == {host for tls in ingress["tls"] for host in tls["hosts"]}, f"{overlay}: TLS")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
