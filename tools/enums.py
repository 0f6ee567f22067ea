#!/usr/bin/env python3
"""Writes the closed lists of values that fields of the API have.

    tools/enums.py DEFINITIONS crates/api/facts/catalogue.txt > crates/apiserver/facts/enums.txt

where DEFINITIONS is pkg/generated/openapi/zz_generated.openapi.go of the version served: of it no more is taken than which
field has which values. Standard library only.
"""
import json, re, sys

TYPE = re.compile(r"^func schema_(\w+)\(ref.*?^}", re.M | re.S)
PROPERTY = re.compile(r'^\t{5}"([^"]+)": \{\n(.*?)^\t{5}\},', re.M | re.S)


def name_of(function):
    """`core.v1.Pod` of `k8sio_api_core_v1_Pod`; nothing of what is no API type."""
    m = re.fullmatch(r"k8sio_api_(\w+?)_(v\d\w*?)_(\w+)", function)
    m = m or re.fullmatch(r"pkg_apis_(meta|apiextensions|apiregistration)_(v1)_(\w+)", function)
    return m and ".".join(m.groups())


def kinds():
    """The kinds of the catalogue and their lists."""
    for line in open(sys.argv[2]):
        match line.split():
            case ["G", _, package, *_]:
                group = package
            case ["V", version, _]:
                package = group + "." + version
            case ["R", _, _, kind, *_]:
                yield "%s.%s" % (package, kind)


text = open(sys.argv[1]).read()
modules = {}  # packages by how the file calls them
for alias, path in re.findall(r'^\t(\w*) ?"k8s\.io/(.+)"$', text, re.M):
    modules[alias or path.split("/")[-1]] = ".".join(path.split("/")[-2:])
parts, lists = {}, {}
for function in TYPE.finditer(text):
    name = name_of(function.group(1))
    if not name:
        continue
    parts[name] = ["%s.%s" % (modules.get(m, m), of) for m, of in re.findall(r"(\w+)\.(\w+)\{\}\.Open", function.group(0))]
    for field, text in PROPERTY.findall(function.group(0)):
        enum = re.search(r"Enum:\s*\[\]interface\{\}\{(.*?)\}", text)
        if enum:
            apart = " +" if r"\n\n\nPossible enum values" in text else ""
            lists.setdefault("|".join(json.loads("[%s]" % enum.group(1))), []).append((name, field + apart))

# What is served, and all that it is made of.
served, found = set(), list(kinds())
while found:
    name = found.pop()
    if name in parts and name not in served:
        served.add(name)
        found.extend(parts[name])

print("# Fields whose values are a closed list; written by tools/enums.py, never by hand.")
print("# `= ` opens a list with its values, divided by `|`; then come the fields that have it, by type and name.")
print("# `+`: an empty line stands between what is said of the field and its values.")
lists = {values: sorted("%s %s" % field for field in fields if field[0] in served) for values, fields in lists.items()}
for values, fields in sorted(lists.items(), key=lambda entry: entry[1]):
    if fields:
        print("= " + values)
        print("\n".join(fields))
