#!/usr/bin/env python3
"""What users of the Python client `kubernetes` do, against a live API server: typed calls, every kind of patch, pages,
watches, the dynamic client, server-side apply and errors.

    round.py SERVER CA_FILE TOKEN
"""
import base64
import sys
import threading
import unittest
import uuid

from kubernetes import client, dynamic, utils, watch
from kubernetes.client.rest import ApiException

SERVER, CA, TOKEN = sys.argv[1:4]


def configuration(token=TOKEN):
    made = client.Configuration()
    made.host, made.ssl_ca_cert = SERVER, CA
    made.api_key = {"authorization": "Bearer " + token}
    return made


def config_map(name, data=None, labels=None):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data or {})


def deployment(name, replicas=1):
    container = client.V1Container(name="app", image="app:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": name}), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=replicas, selector=client.V1LabelSelector(match_labels={"app": name}), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec)


class Round(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.api = client.ApiClient(configuration())
        cls.core, cls.apps = client.CoreV1Api(cls.api), client.AppsV1Api(cls.api)

    def setUp(self):
        self.ns = "py-" + uuid.uuid4().hex[:8]
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=self.ns)))
        self.addCleanup(self.core.delete_namespace, self.ns)

    def refused(self, code, reason, call, *args, **kwargs):
        with self.assertRaises(ApiException) as caught:
            call(*args, **kwargs)
        self.assertEqual((caught.exception.status, caught.exception.reason), (code, reason), caught.exception.body)
        return caught.exception

    def test_version_and_discovery(self):
        self.assertEqual(client.VersionApi(self.api).get_code().major, "1")
        self.assertIn("v1", client.CoreApi(self.api).get_api_versions().versions)
        groups = {group.name for group in client.ApisApi(self.api).get_api_versions().groups}
        self.assertLessEqual({"apps", "batch", "rbac.authorization.k8s.io"}, groups)
        names = {resource.name for resource in self.core.get_api_resources().resources}
        self.assertLessEqual({"pods", "pods/status", "services"}, names)

    def test_life_of_a_config_map(self):
        made = self.core.create_namespaced_config_map(self.ns, config_map("one", {"a": "1"}))
        self.assertIsNotNone(made.metadata.creation_timestamp.tzinfo)
        made.data["b"] = "2"
        changed = self.core.replace_namespaced_config_map("one", self.ns, made)
        self.assertEqual(changed.data, {"a": "1", "b": "2"})
        self.refused(409, "Conflict", self.core.replace_namespaced_config_map, "one", self.ns, made)
        self.refused(409, "Conflict", self.core.create_namespaced_config_map, self.ns, config_map("one"))
        status = self.core.delete_namespaced_config_map("one", self.ns)
        self.assertEqual((status["status"], status["details"]["kind"]), ("Success", "configmaps"))
        error = self.refused(404, "Not Found", self.core.read_namespaced_config_map, "one", self.ns)
        self.assertIn('configmaps \\"one\\" not found', error.body)

    def test_secrets_hold_bytes(self):
        value = base64.b64encode(b"\0\xff").decode()
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), data={"k": value}, string_data={"t": "text"})
        made = self.core.create_namespaced_secret(self.ns, secret)
        self.assertEqual(made.data, {"k": value, "t": base64.b64encode(b"text").decode()})
        self.assertEqual(made.type, "Opaque")

    def test_every_kind_of_patch(self):
        self.apps.create_namespaced_deployment(self.ns, deployment("d"))
        # A dictionary is a strategic merge patch: containers are merged by name.
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}]}}}}
        done = self.apps.patch_namespaced_deployment("d", self.ns, patch)
        self.assertEqual(done.spec.template.spec.containers[0].image, "app:2")
        self.assertEqual(done.spec.template.spec.containers[0].ports[0].container_port, 80)
        # A list is a JSON patch.
        done = self.apps.patch_namespaced_deployment("d", self.ns, [{"op": "replace", "path": "/spec/replicas", "value": 3}])
        self.assertEqual((done.spec.replicas, done.metadata.generation), (3, 3))
        merge = {"metadata": {"labels": {"x": "y"}}}
        done = self.apps.patch_namespaced_deployment("d", self.ns, merge, _content_type="application/merge-patch+json")
        self.assertEqual(done.metadata.labels, {"x": "y"})
        scale = self.apps.patch_namespaced_deployment_scale("d", self.ns, {"spec": {"replicas": 5}})
        self.assertEqual(scale.spec.replicas, 5)
        status = {"status": {"replicas": 2}}
        self.assertEqual(self.apps.patch_namespaced_deployment_status("d", self.ns, status).status.replicas, 2)
        error = self.refused(
            422, "Unprocessable Entity", self.apps.patch_namespaced_deployment, "d", self.ns, {"spec": {"replicas": -1}}
        )
        self.assertIn("must be greater than or equal to 0", error.body)

    def test_server_side_apply(self):
        def apply(manager, data, **more):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
            return self.core.patch_namespaced_config_map(
                "a", self.ns, body, field_manager=manager, _content_type="application/apply-patch+yaml", **more
            )

        apply("one", {"k": "1", "l": "1"})
        self.assertEqual(apply("two", {"m": "1"}).data, {"k": "1", "l": "1", "m": "1"})
        error = self.refused(409, "Conflict", apply, "two", {"k": "2"})
        self.assertIn('conflict with \\"one\\"', error.body)
        forced = apply("two", {"k": "2"}, force=True)
        self.assertEqual(forced.data, {"k": "2", "l": "1"})
        self.assertEqual({entry.manager for entry in forced.metadata.managed_fields}, {"one", "two"})

    def test_lists_are_paged_and_selected(self):
        for n in range(7):
            labels = {"parity": ("even", "odd")[n % 2]}
            self.core.create_namespaced_config_map(self.ns, config_map(f"c{n}", labels=labels))
        names, token = [], None
        while True:
            page = self.core.list_namespaced_config_map(self.ns, limit=3, _continue=token)
            self.assertLessEqual(len(page.items), 3)
            names += [item.metadata.name for item in page.items]
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(names, [f"c{n}" for n in range(7)])
        odd = self.core.list_namespaced_config_map(self.ns, label_selector="parity in (odd)")
        self.assertEqual([item.metadata.name for item in odd.items], ["c1", "c3", "c5"])
        one = self.core.list_config_map_for_all_namespaces(field_selector=f"metadata.name=c4,metadata.namespace={self.ns}")
        self.assertEqual(len(one.items), 1)
        self.refused(400, "Bad Request", self.core.list_namespaced_config_map, self.ns, label_selector="a in b")
        self.core.delete_collection_namespaced_config_map(self.ns, label_selector="parity=even")
        self.assertEqual(len(self.core.list_namespaced_config_map(self.ns).items), 3)

    def test_watch(self):
        start = self.core.list_namespaced_config_map(self.ns).metadata.resource_version
        watching = watch.Watch()
        stream = watching.stream(
            self.core.list_namespaced_config_map, self.ns, resource_version=start, timeout_seconds=20, allow_watch_bookmarks=True
        )

        def act():
            self.core.create_namespaced_config_map(self.ns, config_map("w", {"k": "1"}))
            self.core.patch_namespaced_config_map("w", self.ns, {"data": {"k": "2"}})
            self.core.delete_namespaced_config_map("w", self.ns)

        actor = threading.Thread(target=act)
        actor.start()
        seen = []
        for event in stream:
            self.assertIsInstance(event["object"], client.V1ConfigMap)
            seen.append((event["type"], event["object"].data))
            if event["type"] == "DELETED":
                watching.stop()
        actor.join()
        self.assertEqual(seen, [("ADDED", {"k": "1"}), ("MODIFIED", {"k": "2"}), ("DELETED", {"k": "2"})])

    def test_pods(self):
        pod = client.V1Pod(
            metadata=client.V1ObjectMeta(generate_name="p-"),
            spec=client.V1PodSpec(
                containers=[
                    client.V1Container(
                        name="c",
                        image="app:1",
                        resources=client.V1ResourceRequirements(requests={"cpu": "100m", "memory": "64Mi"}),
                        env=[client.V1EnvVar(name="K", value="v")],
                        readiness_probe=client.V1Probe(http_get=client.V1HTTPGetAction(path="/", port=80)),
                    )
                ]
            ),
        )
        # The API server runs alone: nobody makes the account that pods of a namespace run as.
        account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="default"))
        self.core.create_namespaced_service_account(self.ns, account)
        made = self.core.create_namespaced_pod(self.ns, pod)
        self.assertTrue(made.metadata.name.startswith("p-"))
        self.assertEqual((made.status.phase, made.status.qos_class), ("Pending", "Burstable"))
        target = client.V1ObjectReference(kind="Node", name="n1")
        binding = client.V1Binding(metadata=client.V1ObjectMeta(name=made.metadata.name), target=target)
        self.core.create_namespaced_pod_binding(made.metadata.name, self.ns, binding, _preload_content=False)
        self.assertEqual(self.core.read_namespaced_pod(made.metadata.name, self.ns).spec.node_name, "n1")
        gone = self.core.delete_namespaced_pod(made.metadata.name, self.ns, grace_period_seconds=0)
        self.assertIsInstance(gone, client.V1Pod)
        token = self.core.create_namespaced_service_account_token(
            "default", self.ns, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        )
        as_account = client.AuthenticationV1Api(client.ApiClient(configuration(token.status.token)))
        who = as_account.create_self_subject_review(client.V1SelfSubjectReview())
        self.assertEqual(who.status.user_info.username, f"system:serviceaccount:{self.ns}:default")

    def test_dry_run_and_field_validation(self):
        made = self.core.create_namespaced_config_map(self.ns, config_map("dry"), dry_run="All")
        self.assertIsNotNone(made.metadata.uid)
        self.refused(404, "Not Found", self.core.read_namespaced_config_map, "dry", self.ns)
        maps = dynamic.DynamicClient(self.api).resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dta": {}}
        with self.assertRaises(dynamic.exceptions.BadRequestError) as caught:
            maps.create(body=body, namespace=self.ns, query_params=[("fieldValidation", "Strict")])
        error = caught.exception
        self.assertIn('unknown field \\"dta\\"', error.body)

    def test_access(self):
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(namespace=self.ns, verb="list", resource="pods")
            )
        )
        self.assertTrue(client.AuthorizationV1Api(self.api).create_self_subject_access_review(review).status.allowed)
        stranger = client.CoreV1Api(client.ApiClient(configuration("alice-token")))
        error = self.refused(403, "Forbidden", stranger.list_namespaced_secret, self.ns)
        self.assertIn('User \\"alice\\" cannot list resource \\"secrets\\"', error.body)
        nobody = client.CoreV1Api(client.ApiClient(configuration("no-such-token")))
        self.refused(401, "Unauthorized", nobody.list_namespaced_secret, self.ns)

    def test_documents_of_all_sorts(self):
        documents = [
            {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"schedule": "* * * * *",
             "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}}}}},
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"},
             "spec": {"podSelector": {}}},
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"},
             "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}},
        ]
        for document in documents:
            utils.create_from_dict(self.api, document, namespace=self.ns)
        service = self.core.read_namespaced_service("s", self.ns)
        self.assertEqual((service.spec.type, service.spec.ports[0].target_port), ("ClusterIP", 80))
        self.assertEqual(client.BatchV1Api(self.api).read_namespaced_cron_job("c", self.ns).spec.concurrency_policy, "Allow")

    def test_dynamic_client(self):
        made = dynamic.DynamicClient(self.api)
        maps = made.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"k": "1"}}
        self.assertEqual(maps.create(body=body, namespace=self.ns).data.k, "1")
        body["data"] = {"k": "2"}
        applied = maps.server_side_apply(body=body, namespace=self.ns, field_manager="dyn", force_conflicts=True)
        self.assertEqual(applied.data.k, "2")
        patch = {"metadata": {"name": "d", "labels": {"l": "1"}}}
        maps.patch(body=patch, namespace=self.ns, content_type="application/merge-patch+json")
        self.assertEqual([item.metadata.name for item in maps.get(namespace=self.ns, label_selector="l=1").items], ["d"])
        for event in maps.watch(namespace=self.ns, timeout=10, resource_version="0"):
            self.assertEqual((event["type"], event["object"].metadata.name), ("ADDED", "d"))
            break
        maps.delete(name="d", namespace=self.ns)
        with self.assertRaises(dynamic.exceptions.NotFoundError):
            maps.get(name="d", namespace=self.ns)
        deployments = made.resources.get(api_version="apps/v1", kind="Deployment")
        self.assertIn("scale", deployments.subresources)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
