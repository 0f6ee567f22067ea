#!/usr/bin/env python3
"""Writes crates/api/facts/types.txt: the shape of every API type, as a table of facts.

The OpenAPI documents do not tell whether a field is a pointer in the reference implementation, yet that decides
whether `replicas: 0` is kept or dropped when an object is stored. The struct tags of the published Go API modules do,
and they also carry protobuf field numbers, merge keys and list types. This reads checkouts of those modules:

    tools/facts.py CHECKOUT_DIR > crates/api/facts/types.txt

where CHECKOUT_DIR holds api, apimachinery, apiextensions-apiserver and kube-aggregator at the tag of the version
served (v0.36.x). Only names, numbers and markers are taken, no prose. Standard library only.
"""
import os, re, sys

ROOT = sys.argv[1]
STRUCT = re.compile(r"^type (\w+) struct \{")
EMPTY = re.compile(r"^type (\w+) struct ?\{\}")
ALIAS = re.compile(r"^type (\w+) (=? ?)([\w\[\]\*\.]+)\s*(//.*)?$")
FIELD = re.compile(r"^\t(?:(\w+) +)?([\w\[\]\*\.]+)\s+`([^`]*)`")
TAG = re.compile(r'(\w+):"([^"]*)"')
SCALARS = {"string", "bool", "int32", "int64", "int", "float64", "byte", "uint8", "uint32", "uint64", "int8", "int16"}
SPECIAL = {  # types whose JSON form is not their Go form
    "meta.v1.Time", "meta.v1.MicroTime", "meta.v1.Duration", "meta.v1.FieldsV1", "resource.Quantity", "intstr.IntOrString",
    "runtime.RawExtension", "runtime.Object", "apiextensions.v1.JSON", "apiextensions.v1.JSONSchemaPropsOrBool", "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrStringArray", "runtime.Unknown",
}


def packages():
    for d, _, files in sorted(os.walk(os.path.join(ROOT, "api"))):
        if "types.go" in files or any(f.startswith("types") and f.endswith(".go") for f in files):
            rel = os.path.relpath(d, os.path.join(ROOT, "api"))
            if rel.count("/") == 1 and "testdata" not in rel:
                yield d, rel.replace("/", ".")
    yield os.path.join(ROOT, "apimachinery/pkg/apis/meta/v1"), "meta.v1"
    yield os.path.join(ROOT, "apiextensions-apiserver/pkg/apis/apiextensions/v1"), "apiextensions.v1"
    yield os.path.join(ROOT, "kube-aggregator/pkg/apis/apiregistration/v1"), "apiregistration.v1"


def imports(text):
    out = {}
    for alias, path in re.findall(r'^\s*(?:import )?(\w+)?\s*"(k8s\.io/[^"]+)"', text, re.M):
        parts = path.split("/")
        name = {"resource": "resource", "intstr": "intstr", "runtime": "runtime"}.get(parts[-1]) or ".".join(parts[-2:])
        out[alias or parts[-1]] = name
    return out


def constant(name):
    """The value of a constant that a default refers to by `ref(package.Name)`."""
    m = re.search(r"^\s+%s\s+\w*\s*=\s*(\"[^\"]*\")" % re.escape(name.split(".")[-1]), text, re.M)
    return m.group(1) if m else None


types, aliases, order = {}, {}, []
copies = {}  # named types that are another struct
for path, pkg in packages():
    for f in sorted(os.listdir(path)):
        if not f.startswith(("types", "micro_time", "time", "duration", "group_version")) or not f.endswith(".go") or "_test" in f or "swagger" in f or "proto" in f:
            continue
        text = open(os.path.join(path, f)).read()
        imp = imports(text)

        def resolve(t):
            if t.startswith("*"):
                return "*" + resolve(t[1:])
            if t.startswith("[]"):
                return "[]" + resolve(t[2:])
            m = re.match(r"map\[([\w.]+)\](.*)", t)
            if m:
                return "{}" + resolve(m.group(2))
            if t in SCALARS:
                return t
            if "." in t:
                a, n = t.split(".")
                if a == "types" or (a == "rest"):
                    return "string"
                return imp.get(a, a) + "." + n
            return pkg + "." + t

        def spoken(t):
            """The type as Go's reflection prints it, which decoding errors quote: `[]v1.Container`, `map[string]string`."""
            if t.startswith("*"):
                return spoken(t[1:])
            if t.startswith("[]"):
                return "[]" + spoken(t[2:])
            m = re.match(r"map\[([\w.]+)\](.*)", t)
            if m:
                return "map[" + spoken(m.group(1)) + "]" + spoken(m.group(2))
            if t in SCALARS:
                return {"byte": "uint8"}.get(t, t)
            if "." in t:
                a, n = t.split(".")
                return (imp.get(a, a).split(".")[-1]) + "." + n
            return pkg.split(".")[-1] + "." + t

        current, markers, kinds = None, [], []
        for line in text.split("\n"):
            s = line.strip()
            if s.startswith("//"):
                m = re.match(r"//\s*\+(?:k8s:)?(\w+)(?:=(.*))?$", s)
                if m:
                    markers.append((m.group(1), (m.group(2) or "").strip()))
                continue
            m = EMPTY.match(line)
            if m:
                types[pkg + "." + m.group(1)] = ([], [])
                order.append(pkg + "." + m.group(1))
                markers = []
                continue
            m = STRUCT.match(line)
            if m:
                current = pkg + "." + m.group(1)
                flags = ["atomic"] if ("structType", "atomic") in markers else []
                if ("union", "") in markers:
                    flags.append("union")
                types[current] = (flags, [])
                order.append(current)
                markers = []
                continue
            if current is None:
                m = ALIAS.match(line)
                if m and m.group(3) not in ("interface", "func"):
                    aliases[pkg + "." + m.group(1)] = resolve(m.group(3))
                    if "=" not in m.group(2):
                        copies[pkg + "." + m.group(1)] = resolve(m.group(3))
                if s:
                    markers = []
                continue
            if line.startswith("}"):
                current, markers = None, []
                continue
            m = FIELD.match(line)
            if m:
                name, gotype, tags = m.group(1), m.group(2), dict(TAG.findall(m.group(3)))
                json, *opts = tags.get("json", "").split(",")
                if json == "-":
                    markers = []
                    continue
                flags = []
                if "inline" in opts or (not name and not json):
                    flags.append("inline")
                if "omitempty" in opts:
                    flags.append("omitempty")
                if "omitzero" in opts:
                    flags.append("omitzero")
                proto = tags.get("protobuf", "").split(",")
                number = proto[1] if len(proto) > 1 else "-"
                wire = proto[0] if len(proto) > 1 else "-"
                if tags.get("patchStrategy"):
                    flags.append("patch=" + tags["patchStrategy"].replace(",", "+"))
                if tags.get("patchMergeKey"):
                    flags.append("mergeKey=" + tags["patchMergeKey"])
                keys = [v for k, v in markers if k == "listMapKey"]
                for k, v in markers:
                    if k == "listType":
                        flags.append("list=" + v)
                    elif k == "mapType":
                        flags.append("map=" + v)
                    elif k == "structType":
                        flags.append("struct=" + v)
                    elif k == "default" and v.startswith("ref("):
                        value = constant(v[4:].rstrip(")"))
                        if value:
                            flags.append("default=" + value)
                    elif k == "default" and v:
                        flags.append("default=" + v.replace(" ", ""))
                    elif k == "unionDiscriminator":
                        flags.append("discriminator")
                # As the schemas have it: what may be left out says so, by a marker or by being dropped when empty.
                marked = {k for k, _ in markers}
                if "required" in marked or not ("optional" in marked or "omitempty" in opts or "omitzero" in opts):
                    flags.append("required")
                if keys:
                    flags.append("keys=" + "+".join(dict.fromkeys(k.strip('"') for k in keys)))
                types[current][1].append((json or "-", resolve(gotype), number, wire, flags, spoken(gotype)))
                markers = []
            elif s:
                markers = []


def settle(t):
    """Follows named scalars and collections to what they are made of."""
    for prefix in ("*", "[]", "{}"):
        if t.startswith(prefix):
            return prefix + settle(t[len(prefix):])
    if t in SCALARS or t in types or t in SPECIAL:
        return {"uint8": "byte", "int": "int64"}.get(t, t)
    if t in aliases:
        return settle(aliases[t])
    return "!" + t


def plain(t):
    """What `spoken` says of a settled type; where both differ the table carries a `go=` flag."""
    if t.startswith("*"):
        return plain(t[1:])
    if t.startswith("[]"):
        return "[]" + plain(t[2:])
    if t.startswith("{}"):
        return "map[string]" + plain(t[2:])
    if "." in t:
        return ".".join(t.split(".")[-2:])
    return {"byte": "uint8"}.get(t, t)


for name, of in copies.items():
    if of in types and name not in types and name not in SPECIAL:
        types[name] = types[of]
        order.append(name)
        del aliases[name]


print("# Facts of the Kubernetes v1.36 API types; written by tools/facts.py, never by hand.")
print("# `T name [atomic]` opens a type. A field line is: json name, type, protobuf number, wire type, flags.")
print("# Types: * pointer, [] list, {} map from string; `byte` lists are base64 strings.")
print("# `go=` is the Go type where its name was lost by following a named scalar or collection.")
unknown = set()
for name in order:
    flags, fields = types[name]
    if name in SPECIAL:
        continue
    print(" ".join(["T", name] + flags))
    for json, t, number, wire, fl, go in fields:
        t = settle(t)
        if go != plain(t):
            fl = fl + ["go=" + go]
        if "!" in t:
            unknown.add(t)
        print(" ".join([json, t, number, wire] + fl))
if unknown:
    print("unresolved:", sorted(unknown), file=sys.stderr)
