#!/usr/bin/env python3
"""Makes the images that upstream's end-to-end tests pull, as far as they can be made: from Debian's packages, its static busybox
and upstream's own test programs. `scripts/conformance` calls it with the folder that has `root` (a bootstrapped Debian), `agnhost`,
`nnp` and porter's certificate; the images, docker-archive files, are put into `images` there. Standard library only.
"""
import hashlib, io, json, os, subprocess, sys, tarfile

os.chdir(sys.argv[1])
REGISTRY = "registry.k8s.io/"
TESTS = REGISTRY + "e2e-test-images/"
LEFT_OUT = ("./proc/", "./sys/", "./dev/", "./var/cache/apt/", "./var/lib/apt/lists/", "./usr/share/doc/", "./usr/share/man/", "./usr/share/locale/")
USERS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n"
GROUPS = b"root:x:0:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
NGINX = b"worker_processes 1; events {} http { include /etc/nginx/mime.types; server { listen 80; root /usr/share/nginx/html; } }\n"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def file(name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(data)
    return entry, io.BytesIO(data)


def folder(name, mode=0o755):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry, None


def link(name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry, None


def layer(name, entries=(), root=None):
    with tarfile.open(name, "w") as tar:
        if root:
            tar.add(root, arcname=".", filter=lambda entry: None if entry.name.startswith(LEFT_OUT) else entry)
        for entry, data in entries:
            tar.addfile(entry, data)
    return name


def image(name, layers, **config):
    diffs = ["sha256:" + hashlib.sha256(read(part)).hexdigest() for part in layers]
    config.setdefault("Env", ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    # The name is in the history, so that two images of the same content are two images.
    document = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diffs}, "history": [{"created_by": name}]}
    text = json.dumps(document).encode()
    config_name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": layers}]
    with tarfile.open(os.path.join("images", name.split("/")[-1].replace(":", "-") + ".tar"), "w") as tar:
        for entry, data in (file(config_name, text), file("manifest.json", json.dumps(manifest).encode())):
            tar.addfile(entry, data)
        for part in layers:
            tar.add(part, arcname=part)


os.makedirs("images", exist_ok=True)
applets = subprocess.run(["root/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
debian = layer("debian.layer", root="root")
agnhost = layer("agnhost.layer", [
    file("agnhost", read("agnhost"), 0o755), link("agnhost-2", "agnhost"), folder("uploads"), file("etc/passwd", USERS), file("etc/group", GROUPS),
    file("localhost.crt", read("localhost.crt")), file("localhost.key", read("localhost.key")),
])
busybox = layer("busybox.layer", [
    *(folder(name) for name in ("bin", "etc", "home", "root", "usr", "var")), folder("tmp", 0o1777), file("etc/passwd", USERS),
    file("etc/group", GROUPS), file("bin/busybox", read("root/bin/busybox"), 0o755),
    *(link("bin/" + name, "busybox") for name in applets if name != "busybox"),
])
pages = layer("pages.layer", [file("etc/nginx/nginx.conf", NGINX), file("usr/share/nginx/html/index.html", b"<h1>Welcome to nginx!</h1>")])
setuid = layer("setuid.layer", [file("nnp", read("nnp"), 0o4755)])

for version in ("2.55", "2.63.0"):
    image(TESTS + "agnhost:" + version, [debian, agnhost], Entrypoint=["/agnhost"], Cmd=["pause"])
image(REGISTRY + "pause:3.10.2", [debian, agnhost], Entrypoint=["/agnhost", "pause"])
image(TESTS + "busybox:1.37.0-1", [busybox], Cmd=["sh"])
image(TESTS + "nonroot:1.5", [busybox], Cmd=["sh"], User="1234")
image(TESTS + "nonewprivs:1.4", [debian, setuid], Entrypoint=["/nnp"])
for version in ("1.15-4", "1.27-0"):
    image(TESTS + "nginx:" + version, [debian, pages], Cmd=["nginx", "-g", "daemon off;"], StopSignal="SIGQUIT")
for name in ("glibc-dns-testing:2.0.0", "ipc-utils:1.4"):
    image(TESTS + name, [debian], Cmd=["sleep", "1000000"])
for name in ("kitten", "nautilus"):
    shown = layer(name + ".layer", [file("data.json", json.dumps({"image": name + ".jpg"}).encode()), file(name + ".jpg", b"")])
    image(TESTS + name + ":1.8", [debian, agnhost, shown], Entrypoint=["/agnhost"], Cmd=["test-webserver"])
