//! `authorizer` in expressions: what the sender may do, asked step by step (`authorizer.group('apps').resource('deployments')
//! .namespace('web').check('create').allowed()`).

use std::rc::Rc;
use std::sync::Arc;

use corten_cel::{EvalError, Host, Value};

use crate::authz::{Attributes, Authorizer, Decision};
use crate::user::User;

/// A question that is being put together.
#[derive(Clone)]
pub(super) struct Question {
    authz: Arc<Authorizer>,
    user: Rc<User>,
    step: Step,
}

#[derive(Clone)]
enum Step {
    Start,
    Path(String),
    Group(String),
    Resource(Resource),
}

#[derive(Clone, Default)]
struct Resource {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    fields: String,
}

/// The answer.
struct Answer(Decision);

impl Question {
    /// `authorizer`
    pub(super) fn start(authz: &Arc<Authorizer>, user: &User) -> Self {
        Self { authz: authz.clone(), user: Rc::new(user.clone()), step: Step::Start }
    }

    /// `authorizer.requestResource`
    pub(super) fn about(&self, request: &super::super::AdmissionRequest) -> Self {
        let resource = Resource {
            group: request.group.clone(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            fields: String::new(),
        };
        self.with(Step::Resource(resource))
    }

    fn with(&self, step: Step) -> Self {
        Self { step, ..self.clone() }
    }

    fn check(&self, verb: &str) -> Answer {
        let none = Resource::default();
        let (resource, path) = match &self.step {
            Step::Resource(resource) => (resource, ""),
            Step::Path(path) => (&none, path.as_str()),
            Step::Start | Step::Group(_) => (&none, ""),
        };
        Answer(self.authz.decide(&Attributes {
            user: &self.user,
            verb,
            is_resource: matches!(self.step, Step::Resource(_)),
            group: &resource.group,
            resource: &resource.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
            path,
            field_selector: &resource.fields,
        }))
    }
}

impl<'a> Host<'a> for Question {
    fn call(&self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
        let texts: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
        let changed = |change: &dyn Fn(&mut Resource)| match &self.step {
            Step::Resource(resource) => {
                let mut resource = resource.clone();
                change(&mut resource);
                Ok(self.with(Step::Resource(resource)))
            }
            _ => Err(EvalError::NoSuchOverload),
        };
        let next = match (function, texts.as_slice(), &self.step) {
            ("check", [verb], Step::Path(_) | Step::Resource(_)) => return Ok(Value::Host(Rc::new(self.check(verb)))),
            ("path", [path], Step::Start) if !path.trim().is_empty() => self.with(Step::Path(path.trim().to_owned())),
            ("path", [_], Step::Start) => return Err(EvalError::Failed("path must not be empty".to_owned())),
            ("group", [group], Step::Start) => self.with(Step::Group(group.trim().to_owned())),
            ("serviceAccount", [namespace, name], Step::Start) => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
                Self { user: Rc::new(User::new(user, &groups)), ..self.clone() }
            }
            ("resource", [resource], Step::Group(group)) => {
                let (group, resource) = (group.clone(), resource.trim().to_owned());
                self.with(Step::Resource(Resource { group, resource, ..Resource::default() }))
            }
            ("subresource", [value], _) => changed(&|resource| resource.subresource = value.trim().to_owned())?,
            ("namespace", [value], _) => changed(&|resource| resource.namespace = value.trim().to_owned())?,
            ("name", [value], _) => changed(&|resource| resource.name = value.trim().to_owned())?,
            ("fieldSelector", [value], _) => changed(&|resource| resource.fields = (*value).to_owned())?,
            // No authorizer here looks at labels, so a question is not narrowed by them.
            ("labelSelector", [_], _) => changed(&|_| {})?,
            _ => return Err(EvalError::NoSuchOverload),
        };
        Ok(Value::Host(Rc::new(next)))
    }

    fn type_name(&self) -> &'static str {
        match self.step {
            Step::Start => "kubernetes.authorization.Authorizer",
            Step::Path(_) => "kubernetes.authorization.PathCheck",
            Step::Group(_) => "kubernetes.authorization.GroupCheck",
            Step::Resource(_) => "kubernetes.authorization.ResourceCheck",
        }
    }
}

impl<'a> Host<'a> for Answer {
    fn call(&self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
        let reason = match &self.0 {
            Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        };
        match (function, args) {
            ("allowed", []) => Ok(Value::Bool(matches!(self.0, Decision::Allow(_)))),
            ("reason", []) => Ok(Value::text(reason.as_str())),
            ("errored", []) => Ok(Value::Bool(false)),
            ("error", []) => Ok(Value::text("")),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }
}
