// What users of `@kubernetes/client-node` do, against a live API server: typed calls, patches, pages, watches, an
// informer, objects of any kind, server-side apply and errors.
//
//     node round.mjs KUBECONFIG
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

// The modules are installed beside the build's other products, not in the sources.
const require = createRequire(process.env.CLIENT_MODULES + '/');
const k8s = require('@kubernetes/client-node');

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.CLIENT_KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const namespace = 'js-' + randomUUID().slice(0, 8);

const configMap = (name, data = {}, labels = {}) => ({ metadata: { name, labels }, data });
const patchAs = (type) => k8s.setHeaderOptions('Content-Type', type);
const refused = (code) => (error) => {
    assert.equal(error.code, code, error.message);
    return true;
};

before(() => core.createNamespace({ body: { metadata: { name: namespace } } }));
after(() => core.deleteNamespace({ name: namespace }));

test('an object is created, read, replaced and deleted', async () => {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('one', { a: '1' }) });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    made.data.b = '2';
    const changed = await core.replaceNamespacedConfigMap({ namespace, name: 'one', body: made });
    assert.deepEqual(changed.data, { a: '1', b: '2' });
    await assert.rejects(core.replaceNamespacedConfigMap({ namespace, name: 'one', body: made }), refused(409));
    await core.deleteNamespacedConfigMap({ namespace, name: 'one' });
    await assert.rejects(core.readNamespacedConfigMap({ namespace, name: 'one' }), (error) => {
        assert.equal(error.code, 404);
        assert.match(error.body, /configmaps \\"one\\" not found/);
        return true;
    });
});

test('every kind of patch', async () => {
    const labels = { app: 'd' };
    const container = { name: 'app', image: 'app:1', ports: [{ containerPort: 80 }] };
    const spec = { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [container] } } };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'd' }, spec } });
    const patch = (body, type) => apps.patchNamespacedDeployment({ namespace, name: 'd', body }, patchAs(type));
    const image = { spec: { template: { spec: { containers: [{ name: 'app', image: 'app:2' }] } } } };
    const strategic = await patch(image, k8s.PatchStrategy.StrategicMergePatch);
    assert.equal(strategic.spec.template.spec.containers[0].ports[0].containerPort, 80);
    const json = await patch([{ op: 'replace', path: '/spec/replicas', value: 3 }], k8s.PatchStrategy.JsonPatch);
    assert.equal(json.spec.replicas, 3);
    const merge = await patch({ metadata: { labels: { x: 'y' } } }, k8s.PatchStrategy.MergePatch);
    assert.deepEqual(merge.metadata.labels, { x: 'y' });
    await assert.rejects(patch({ spec: { replicas: -1 } }, k8s.PatchStrategy.MergePatch), refused(422));
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'd' });
    scale.spec.replicas = 7;
    assert.equal((await apps.replaceNamespacedDeploymentScale({ namespace, name: 'd', body: scale })).spec.replicas, 7);
});

test('server-side apply', async () => {
    const apply = (fieldManager, data, more = {}) => {
        const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data };
        const options = patchAs(k8s.PatchStrategy.ServerSideApply);
        return core.patchNamespacedConfigMap({ namespace, name: 'a', body, fieldManager, ...more }, options);
    };
    await apply('one', { k: '1' });
    await assert.rejects(apply('two', { k: '2' }), refused(409));
    assert.deepEqual((await apply('two', { k: '2' }, { force: true })).data, { k: '2' });
});

test('lists are paged', async () => {
    for (const n of [0, 1, 2, 3, 4]) {
        await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${n}`, {}, { paged: 'yes' }) });
    }
    const names = [];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'paged=yes', limit: 2, _continue });
        names.push(...page.items.map((item) => item.metadata.name));
        _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(names, ['page-0', 'page-1', 'page-2', 'page-3', 'page-4']);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'paged=yes' });
    assert.equal((await core.listNamespacedConfigMap({ namespace, labelSelector: 'paged=yes' })).items.length, 0);
});

test('a watch', async () => {
    const { metadata } = await core.listNamespacedConfigMap({ namespace });
    const seen = [];
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    let open;
    await new Promise((resolve, reject) => {
        const query = { resourceVersion: metadata.resourceVersion, labelSelector: 'watched' };
        const event = (type, object) => {
            seen.push([type, object.data.k]);
            if (type === 'DELETED') resolve();
        };
        new k8s.Watch(config).watch(path, query, event, (error) => error && reject(error)).then(async (controller) => {
            open = controller;
            await core.createNamespacedConfigMap({ namespace, body: configMap('w', { k: '1' }, { watched: 'yes' }) });
            const body = { data: { k: '2' } };
            await core.patchNamespacedConfigMap({ namespace, name: 'w', body }, patchAs(k8s.PatchStrategy.MergePatch));
            await core.deleteNamespacedConfigMap({ namespace, name: 'w' });
        }).catch(reject);
    });
    // A watch that is left open keeps the program from ending.
    open.abort();
    assert.deepEqual(seen, [['ADDED', '1'], ['MODIFIED', '2'], ['DELETED', '2']]);
});

test('an informer', async () => {
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'before' }, stringData: { k: 'v' } } });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/secrets`, () => core.listNamespacedSecret({ namespace }));
    const added = new Set();
    await new Promise((resolve, reject) => {
        informer.on('error', reject);
        informer.on('add', async (secret) => {
            added.add(secret.metadata.name);
            if (secret.metadata.name === 'before') {
                await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'later' } } });
            } else {
                resolve();
            }
        });
        informer.start().catch(reject);
    });
    await informer.stop();
    assert.deepEqual(added, new Set(['before', 'later']));
    assert.equal(informer.get('before', namespace).data.k, Buffer.from('v').toString('base64'));
});

test('objects of any kind', async () => {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 's', namespace }, spec: { ports: [{ port: 80 }] } };
    const made = await objects.create(service);
    assert.equal(made.spec.type, 'ClusterIP');
    const patched = await objects.patch({ ...service, metadata: { ...service.metadata, labels: { a: 'b' } } });
    assert.deepEqual(patched.metadata.labels, { a: 'b' });
    assert.equal((await objects.list('v1', 'Service', namespace)).items.length, 1);
    await objects.delete(service);
    await assert.rejects(objects.read(service), refused(404));
});

test('versions, access and refusals', async () => {
    assert.equal((await config.makeApiClient(k8s.VersionApi).getCode()).major, '1');
    const review = { spec: { resourceAttributes: { namespace, verb: 'list', resource: 'pods' } } };
    const access = await config.makeApiClient(k8s.AuthorizationV1Api).createSelfSubjectAccessReview({ body: review });
    assert.equal(access.status.allowed, true);
    const yaml = k8s.loadYaml('apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n');
    const job = await config.makeApiClient(k8s.BatchV1Api).createNamespacedJob({ namespace, body: yaml });
    assert.equal(job.spec.completions, 1);
    await assert.rejects(core.createNamespacedConfigMap({ namespace, body: configMap('UPPER') }), refused(422));
});
