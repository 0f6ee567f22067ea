#!/usr/bin/env python3
"""Writes crates/apiserver/facts/rbac.txt: the bootstrap roles and bindings, in a compact form, from the reference's YAML.

    tools/rbac.py DIRECTORY > crates/apiserver/facts/rbac.txt

A line opens an object or adds to the one above; `-` is the core group or the empty namespace, lists have commas.
    clusterrole NAME [LABEL=VALUE...]             clusterrolebinding NAME KIND/ROLE SUBJECT...
    role NAMESPACE NAME                           rolebinding NAMESPACE NAME KIND/ROLE SUBJECT...
    aggregate LABEL=VALUE                         rule GROUPS RESOURCES VERBS [NAMES]
    url PATHS VERBS                               subjects: user:NAME group:NAME sa:NAMESPACE/NAME
"""
import sys, yaml

BOOTSTRAP = ("kubernetes.io/bootstrapping", "rbac-defaults")
words = lambda l: ",".join(x or "-" for x in l)

def subject(s):
    if s["kind"] == "ServiceAccount":
        return f"sa:{s['namespace']}/{s['name']}"
    return f"{s['kind'].lower()}:{s['name']}"

def show(o):
    kind, meta = o["kind"], o["metadata"]
    labels = [f"{k}={v}" for k, v in sorted(meta.get("labels", {}).items()) if (k, v) != BOOTSTRAP]
    place = [meta["namespace"]] if meta.get("namespace") else []
    if kind.endswith("Binding"):
        ref = o["roleRef"]
        tail = [f"{ref['kind']}/{ref['name']}"] + [subject(s) for s in o.get("subjects") or []]
    else:
        tail = labels
    print(" ".join([kind.lower(), *place, meta["name"], *tail]))
    for s in (o.get("aggregationRule") or {}).get("clusterRoleSelectors", []):
        (k, v), = s["matchLabels"].items()
        print(f"aggregate {k}={v}")
    for r in o.get("rules") or []:
        if r.get("nonResourceURLs"):
            print("url", words(r["nonResourceURLs"]), words(r["verbs"]))
        else:
            names = [words(r["resourceNames"])] if r.get("resourceNames") else []
            print("rule", words(r["apiGroups"]), words(r["resources"]), words(r["verbs"]), *names)

print("# Bootstrap roles and bindings of Kubernetes v1.36; written by tools/rbac.py, never by hand.")
for name in ["cluster-roles", "controller-roles", "namespace-roles", "cluster-role-bindings", "controller-role-bindings", "namespace-role-bindings"]:
    for o in yaml.safe_load(open(f"{sys.argv[1]}/{name}.yaml"))["items"]:
        show(o)
