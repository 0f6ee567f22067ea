//! The environment of a container: values with `$(VAR)` expansion, references to fields, resources, ConfigMaps and
//! Secrets, `envFrom`, and the variables that describe Services. Pure; the objects are looked up before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

use crate::fields::{FieldError, Node, field, resource};
use crate::objects::ObjectError;
use crate::pod::PodExt;
use crate::services::ServiceVars;

/// Everything an environment may refer to.
pub struct Sources<'a> {
    pub config_maps: &'a HashMap<String, Result<Arc<ConfigMap>, ObjectError>>,
    pub secrets: &'a HashMap<String, Result<Arc<Secret>, ObjectError>>,
    pub services: &'a [ServiceVars],
    pub node: &'a Node<'a>,
}

/// Why the environment could not be made; the text is the message of `CreateContainerConfigError`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EnvError {
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    ConfigMapKey { key: String, namespace: String, name: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    SecretKey { key: String, namespace: String, name: String },
    #[error("{0}")]
    Field(#[from] FieldError),
}

/// Names of the ConfigMaps and Secrets that the environment of `container` refers to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.as_ref().map(|source| source.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|source| source.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|key| key.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|key| key.name.clone()));
    }
    for names in [&mut config_maps, &mut secrets] {
        names.sort_unstable();
        names.dedup();
    }
    (config_maps, secrets)
}

/// The variables in order: `envFrom`, `env`, then those of Services that nothing named before.
pub fn environment(pod: &Pod, container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let services = service_variables(pod, sources.services);
    let mut env = Env::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref
            && let Some(map) = find(sources.config_maps, &source.name, source.optional)?
        {
            for (key, value) in map.data.iter().flatten() {
                env.set(format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(source) = &from.secret_ref
            && let Some(secret) = find(sources.secrets, &source.name, source.optional)?
        {
            for (key, value) in secret.data.iter().flatten() {
                env.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => expand(text, |name| env.get(name).or_else(|| services.get(name).cloned())),
            (_, Some(source)) => match referred(pod, container, source, sources)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        env.set(var.name.clone(), value);
    }
    for (name, value) in services {
        if !env.index.contains_key(&name) {
            env.set(name, value);
        }
    }
    Ok(env.vars)
}

/// Replaces `$(NAME)` with its value; `$$` is a dollar sign and an unknown name stays as it is.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('(')
            && let Some(end) = after.find(')')
        {
            let name = &after[..end];
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Command or arguments with `$(VAR)` replaced.
pub fn expand_all(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let value = |name: &str| env.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.clone());
    words.into_iter().flatten().map(|word| expand(word, value)).collect()
}

#[derive(Default)]
struct Env {
    vars: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Env {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(index) => self.vars[*index].1 = value,
            None => {
                self.index.insert(name.clone(), self.vars.len());
                self.vars.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|index| self.vars[*index].1.clone())
    }
}

fn find<K>(
    all: &HashMap<String, Result<Arc<K>, ObjectError>>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<Arc<K>>, EnvError> {
    match all.get(name) {
        Some(Ok(object)) => Ok(Some(object.clone())),
        Some(Err(ObjectError::NotFound { .. })) | None if optional == Some(true) => Ok(None),
        Some(Err(err)) => Err(err.clone().into()),
        None => Ok(None),
    }
}

/// The value behind `valueFrom`; `None` when it is optional and absent.
fn referred(pod: &Pod, container: &Container, source: &EnvVarSource, sources: &Sources<'_>) -> Result<Option<String>, EnvError> {
    let namespace = pod.namespace().to_owned();
    if let Some(reference) = &source.field_ref {
        return Ok(Some(field(pod, &reference.field_path, sources.node)?));
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(resource(pod, Some(&container.name), reference, sources.node)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = find(sources.config_maps, &reference.name, reference.optional)? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        return match value {
            None if reference.optional != Some(true) => {
                Err(EnvError::ConfigMapKey { key: reference.key.clone(), namespace, name: reference.name.clone() })
            }
            value => Ok(value),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = find(sources.secrets, &reference.name, reference.optional)? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        return match value.map(|value| String::from_utf8_lossy(&value.0).into_owned()) {
            None if reference.optional != Some(true) => {
                Err(EnvError::SecretKey { key: reference.key.clone(), namespace, name: reference.name.clone() })
            }
            value => Ok(value),
        };
    }
    Ok(Some(String::new()))
}

/// Variables of the Services in the pod's namespace (unless `enableServiceLinks` is off) and of `default/kubernetes`.
fn service_variables(pod: &Pod, services: &[ServiceVars]) -> BTreeMap<String, String> {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let mut vars = BTreeMap::new();
    // A Service of the pod's own namespace wins over the one of the API server.
    for own in [false, true] {
        for service in services {
            let master = service.namespace == "default" && service.name == "kubernetes";
            if (own && links && service.namespace == pod.namespace()) || (!own && master) {
                service.variables(&mut vars);
            }
        }
    }
    vars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn variables_expand() {
        for (text, expected) in [
            ("plain", "plain"), ("$(A)", "one"), ("$$(A)", "$(A)"), ("$(A)$(B)", "onetwo"), ("$(NONE)", "$(NONE)"),
            ("$A", "$A"), ("$(A", "$(A"), ("a$", "a$"), ("$$$(A)", "$one"), ("$$$$", "$$"),
        ] {
            let value = |name: &str| match name { "A" => Some("one".to_owned()), "B" => Some("two".to_owned()), _ => None };
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    fn sources_of(test: impl FnOnce(&Sources<'_>)) {
        let map: ConfigMap = serde_json::from_str(r#"{"data": {"k": "from map", "other": "o"}}"#).expect("valid");
        let secret: Secret = serde_json::from_str(r#"{"data": {"s": "c2VjcmV0"}}"#).expect("valid");
        let missing = || ObjectError::NotFound { kind: "configmap", name: "none".to_owned() };
        let config_maps = HashMap::from([("cm".to_owned(), Ok(Arc::new(map))), ("none".to_owned(), Err(missing()))]);
        let secrets = HashMap::from([("sec".to_owned(), Ok(Arc::new(secret)))]);
        let services = [ServiceVars::sample("default", "kubernetes", "10.43.0.1", 443)];
        let node = Node::default();
        test(&Sources { config_maps: &config_maps, secrets: &secrets, services: &services, node: &node });
    }

    #[test]
    #[rustfmt::skip]
    fn every_source_gives_its_value() {
        check("env: [{name: A, value: x}, {name: B, value: $(A)y}]", Ok("B=xy"));
        check("env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: k}}}]", Ok("A=from map"));
        check("env: [{name: A, valueFrom: {secretKeyRef: {name: sec, key: s}}}]", Ok("A=secret"));
        check("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", Ok("A=web"));
        check("env: [{name: A, value: $(KUBERNETES_SERVICE_HOST)}]", Ok("A=10.43.0.1"));
        check("envFrom: [{prefix: P_, configMapRef: {name: cm}}]", Ok("P_k=from map"));
        check("envFrom: [{configMapRef: {name: cm}}], env: [{name: k, value: own}]", Ok("k=own"));
        check("envFrom: [{configMapRef: {name: none, optional: true}}], env: [{name: A, value: x}]", Ok("A=x"));
        check("envFrom: [{configMapRef: {name: none}}]", Err("configmap \"none\" not found"));
        check("env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: z}}}]", Err("couldn't find key z in ConfigMap default/cm"));
        check("env: [{name: A, valueFrom: {secretKeyRef: {name: sec, key: z}}}]", Err("couldn't find key z in Secret default/sec"));
        check("env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: z, optional: true}}}, {name: B, value: b}]", Ok("B=b"));

        #[track_caller]
        fn check(container: &str, expected: Result<&str, &str>) {
            let pod = pod(&format!("{{containers: [{{name: a, {container}}}]}}"));
            sources_of(|sources| match (environment(&pod, &pod.spec().containers[0], sources), expected) {
                (Ok(env), Ok(wanted)) => {
                    assert!(env.iter().any(|(name, value)| format!("{name}={value}") == wanted), "{wanted} in {env:?}");
                }
                (Err(err), Err(wanted)) => assert_eq!(err.to_string(), wanted),
                (got, wanted) => panic!("{got:?} instead of {wanted:?}"),
            });
        }
    }
}
