#!/usr/bin/env python3
"""Writes crates/api/facts/catalogue.txt: every built-in resource, from the reference discovery documents.

    tools/catalogue.py DISCOVERY_DIR > crates/api/facts/catalogue.txt

where DISCOVERY_DIR holds discovery-core.json (an APIResourceList) and discovery-groups.json (an aggregated discovery
document that lists beta and alpha versions too). What discovery does not say (selectable fields, kinds stored as
another group's) is the table below. Standard library only.
"""
import json, os, sys

ROOT = sys.argv[1]
# Groups whose storage is not their own preferred version; the discovery documents only show a hash of it.
STORED_AS = {
    ("events.k8s.io", "events"): "/v1/Event",
    ("apiextensions.k8s.io", "customresourcedefinitions"): "apiextensions.k8s.io/v1beta1/CustomResourceDefinition",
}
# Resources that are announced with the hash of another version than the one they are stored in here.
ANNOUNCED = {
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): "v1beta1",
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): "v1beta1",
}
PACKAGES = {"": "core", "internal.apiserver.k8s.io": "apiserverinternal"}
# Selectable fields besides metadata.name and metadata.namespace.
EVENT = "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
FIELDS = {
    ("", "pods"): "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName",
    ("", "nodes"): "spec.unschedulable",
    ("", "namespaces"): "name status.phase",
    ("", "secrets"): "type",
    ("", "services"): "spec.clusterIP spec.type",
    ("", "replicationcontrollers"): "status.replicas",
    ("", "events"): EVENT,
    ("events.k8s.io", "events"): EVENT.replace("involvedObject", "regarding").replace("reportingComponent source", "reportingController"),
    ("apps", "replicasets"): "status.replicas",
    ("batch", "jobs"): "status.successful",
    ("certificates.k8s.io", "certificatesigningrequests"): "spec.signerName",
    ("certificates.k8s.io", "clustertrustbundles"): "spec.signerName",
    ("certificates.k8s.io", "podcertificaterequests"): "spec.signerName spec.podName spec.nodeName",
    ("resource.k8s.io", "resourceslices"): "spec.nodeName spec.driver",
}


def package(group):
    return PACKAGES.get(group) or group.split(".")[0]


def gvk(kind, group, version, own_group, own_version):
    return kind if (group, version) == (own_group, own_version) else f"{group}/{version}/{kind}"


def core():
    doc = json.load(open(os.path.join(ROOT, "discovery-core.json")))
    resources = {}
    for r in doc["resources"]:
        name, _, sub = r["name"].partition("/")
        kind = gvk(r["kind"], r.get("group", ""), r.get("version", "v1"), "", "v1")
        if sub:
            parent = resources.setdefault(name, {"subs": []})
            parent["subs"].append((sub, kind, r["verbs"]))
        else:
            resources.setdefault(name, {"subs": []}).update(
                name=name, singular=r["singularName"], kind=kind, namespaced=r["namespaced"],
                short=r.get("shortNames", []), categories=r.get("categories", []), verbs=r["verbs"])
    return [("", [("v1", list(resources.values()))])]


def groups():
    doc = json.load(open(os.path.join(ROOT, "discovery-groups.json")))
    for item in doc["items"]:
        group = item["metadata"]["name"]
        versions = []
        for v in item["versions"]:
            out = []
            for r in v["resources"]:
                def full(k):
                    return gvk(k["kind"], k["group"] or group, k["version"] or v["version"], group, v["version"])
                out.append({
                    "name": r["resource"], "singular": r["singularResource"], "kind": full(r["responseKind"]),
                    "namespaced": r["scope"] == "Namespaced", "short": r.get("shortNames", []), "categories": r.get("categories", []),
                    "verbs": r["verbs"], "subs": [(s["subresource"], full(s["responseKind"]), s["verbs"]) for s in r.get("subresources", [])]})
            versions.append((v["version"], out))
        yield group, versions


print("# The built-in resources of Kubernetes v1.36, in discovery order; written by tools/catalogue.py, never by hand.")
print("# `G group package`, `V version on|off` (served by default), `R plural singular kind scope verbs flags…`, `S subresource kind verbs`.")
for group, versions in core() + list(groups()):
    print("G", group or '""', package(group))
    for version, resources in versions:
        print("V", version, "off" if "alpha" in version or "beta" in version else "on")
        for r in resources:
            flags = []
            if r["short"]:
                flags.append("short=" + ",".join(r["short"]))
            if r["categories"]:
                flags.append("categories=" + ",".join(r["categories"]))
            if (group, r["name"]) in STORED_AS:
                flags.append("stored=" + STORED_AS[group, r["name"]])
            if (group, r["name"]) in ANNOUNCED and version == versions[0][0]:
                flags.append("announced=" + ANNOUNCED[group, r["name"]])
            if (group, r["name"]) in FIELDS:
                flags.append("fields=" + FIELDS[group, r["name"]].replace(" ", ","))
            print(" ".join(["R", r["name"], r["singular"], r["kind"], "namespaced" if r["namespaced"] else "cluster", ",".join(r["verbs"])] + flags))
            for sub, kind, verbs in r["subs"]:
                print("S", sub, kind, ",".join(verbs))
