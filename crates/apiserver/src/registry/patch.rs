//! Patch: JSON Patch, merge patch and strategic merge patch, and server-side apply, as changes of an update.

use std::sync::Arc;

use http::header;
use serde_json::Value;

use corten_api::facts::{Type, Types};
use corten_api::status::Status;
use corten_schema::apply;
use corten_schema::decode::{self, FieldValidation};
use corten_schema::patch::{Patch, PatchKind};

use super::codec;
use super::create::Ownership;
use super::managed::{self, Configuration};
use super::options::{Validation, WriteOptions};
use super::read;
use super::render;
use super::target::Target;
use super::update::{self, Change};
use super::write::{self, Writing, meta_text};
use crate::metrics;
use crate::negotiate::{self, Endpoint};
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

const APPLY: &str = "application/apply-patch+yaml";

/// `PATCH` of an object or of its status.
pub(crate) async fn patch(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let kind = patch_kind(call.header(header::CONTENT_TYPE), target)?;
    let form = read::form(call, Endpoint::Object)?;
    let body = call.read_body(state.config.max_request_body).await?;
    state.metrics.requests.body(target, metrics::Write::Patch, body.len());
    let options = WriteOptions::parse(&call.query, "PatchOptions", kind.is_none())?;
    if let Some(trail) = call.trail() {
        trail.patch(&body);
    }
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let name = call.info().name.clone();
    let (outcome, created) = match kind {
        Some(kind) => {
            let change = Patching::read(&writing, kind, &body, &name);
            update::apply_change(&mut writing, call, &name, &change).await?
        }
        None => {
            let applied = Configuration::read(&body)?;
            let force = writing.options.force == Some(true);
            let change = Applying { applied, force, name: name.clone(), creates: writing.subresource.is_empty() };
            update::apply_change(&mut writing, call, &name, &change).await?
        }
    };
    render::outcome(target, form, if created { 201 } else { 200 }, outcome, call)
}

/// The kind of a patch by its content type; none is apply.
pub(crate) fn patch_kind(content_type: &str, target: &Target) -> Result<Option<PatchKind>, Status> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(Some(PatchKind::Json)),
        "application/merge-patch+json" => Ok(Some(PatchKind::Merge)),
        "application/strategic-merge-patch+json" if !target.resource.custom => Ok(Some(PatchKind::Strategic)),
        APPLY => Ok(None),
        _ => Err(negotiate::unknown_patch_type(target.resource.custom)),
    }
}

/// A patch of the first three kinds.
pub(crate) struct Patching {
    /// Or what is wrong with it, which is of interest only where there is something to patch.
    patch: Result<Patch, Status>,
    name: String,
    ty: Option<&'static Type>,
    validation: Validation,
    /// What is patched is the object as it is stored, or its status.
    is_of_stored: bool,
}

impl Patching {
    /// Reads a patch of the object `name`.
    pub(crate) fn read(writing: &Writing<'_>, kind: PatchKind, body: &[u8], name: &str) -> Self {
        let validation = writing.options.validation;
        let patch = Patch::read(kind, body, field_validation(validation)).map_err(Into::into);
        let type_name = codec::type_of(writing.target, &writing.subresource).to_owned();
        let is_of_stored = matches!(writing.subresource.as_str(), "" | "status");
        Self { patch, name: name.to_owned(), ty: Types::get().named(&type_name), validation, is_of_stored }
    }

    /// The patched document in the form the encoder would give it.
    pub(crate) fn apply(&self, writing: &mut Writing<'_>, live: &Value) -> Result<Value, Status> {
        let patch = self.patch.as_ref().map_err(Clone::clone)?;
        let mut patched = patch.apply(live, self.ty)?;
        let mut strict = patch.strict.clone();
        let refused = |patched: &Value, fault: &str| {
            let mut shown = patched.clone();
            apply::unfold(&mut shown);
            patch.invalid(&shown, self.ty, fault)
        };
        if patch.is_converted() {
            // The converter goes by the type it was given, whatever the document says of itself.
            for field in ["kind", "apiVersion"] {
                if matches!(patched[field], Value::Null | Value::String(_)) {
                    patched[field] = live[field].clone();
                }
            }
        } else if let Some(fault) = other_type(writing, live, &patched) {
            return Err(refused(&patched, &fault));
        } else if is_internal(writing, &patched) && !writing.target.resource.custom {
            strict.extend(unread(&patched));
            self.tell(writing, strict, |fault| refused(&patched, fault))?;
            return Err(write::no_name(&self.name));
        } else if let Some((version, ty)) = other_version(writing, live, &patched) {
            apply::unfold(&mut patched);
            let decoded = decode::normalize_as_sent(&patched, ty).map_err(|err| refused(&patched, &err.to_string()))?;
            strict.extend(decoded.strict);
            self.tell(writing, strict, |fault| refused(&patched, fault))?;
            return self.of_version(writing, live, &version, decoded.document);
        }
        // What is stored is in its normal form already; what was converted or made by hand may not be.
        let is_stored = self.is_of_stored && writing.target.is_stored_form();
        let normal = match Normal::of(live, &patched, self.ty, is_stored) {
            Err(_) if patch.is_converted() => {
                apply::unfold(&mut patched);
                let converted = self.ty.map_or(Ok(()), |ty| decode::convert(&mut patched, ty));
                converted
                    .and_then(|()| Normal::of(live, &patched, self.ty, is_stored))
                    .map_err(|err| refused(&patched, &err.converted()))?
            }
            outcome => outcome.map_err(|err| refused(&patched, &err.to_string()))?,
        };
        strict.append(&mut normal.strict().to_vec());
        self.tell(writing, strict, |fault| refused(&patched, fault))?;
        Ok(match normal {
            Normal::Whole(decoded) => decoded.document,
            Normal::Changed(changed, ty) => changed.complete(patched, ty),
        })
    }

    /// A document that says it is of another version of the same kind, in the version of the path. Defaults are those of the
    /// version that it says it is of; the stored form's rules know no others.
    fn of_version(&self, writing: &Writing<'_>, live: &Value, version: &str, mut document: Value) -> Result<Value, Status> {
        if version == writing.target.stored_version() {
            writing.default(&mut document);
        }
        codec::convert(writing.target, version, &writing.target.api_version(), &mut document)?;
        for field in ["kind", "apiVersion"] {
            document[field] = live[field].clone();
        }
        let Some(ty) = self.ty else { return Ok(document) };
        let decoded = decode::normalize_as_sent(&document, ty);
        decoded.map(|decoded| decoded.document).map_err(|err| Status::internal(err.to_string()))
    }

    /// Warns of what is questionable, or refuses the patch.
    fn tell(&self, writing: &mut Writing<'_>, strict: Vec<String>, refused: impl Fn(&str) -> Status) -> Result<(), Status> {
        match self.validation {
            Validation::Warn => strict.into_iter().for_each(|text| writing.warn(text)),
            Validation::Strict if !strict.is_empty() => {
                return Err(refused(&format!("strict decoding error: {}", strict.join(", "))));
            }
            Validation::Ignore | Validation::Strict => {}
        }
        Ok(())
    }
}

/// The normal form of a patched document.
enum Normal {
    Whole(decode::Decoded),
    /// Of what the patch changed.
    Changed(decode::Changed, &'static Type),
}

impl Normal {
    fn of(live: &Value, patched: &Value, ty: Option<&'static Type>, is_stored: bool) -> Result<Self, decode::DecodeError> {
        match ty {
            Some(ty) if is_stored => Ok(Self::Changed(decode::normalize_changed(live, patched, ty)?, ty)),
            Some(ty) => decode::normalize_as_sent(patched, ty).map(Self::Whole),
            None => decode::normalize_custom(patched).map(Self::Whole),
        }
    }

    fn strict(&self) -> &[String] {
        match self {
            Self::Whole(decoded) => &decoded.strict,
            Self::Changed(changed, _) => &changed.strict,
        }
    }
}

/// Whether a patch took the version away, or says that the document is in the form the server holds inside.
fn is_internal(writing: &Writing<'_>, patched: &Value) -> bool {
    let api_version = patched["apiVersion"].as_str().unwrap_or_default();
    let expected = || codec::Expected::of(writing.target, &writing.subresource);
    api_version.is_empty() || codec::internal_group(api_version).is_some_and(|group| group == expected().group)
}

/// Version and type of a patched document that says it is of another version of its kind. It is read as that.
fn other_version(writing: &Writing<'_>, live: &Value, patched: &Value) -> Option<(String, &'static Type)> {
    let api_version = patched["apiVersion"].as_str()?;
    if live["apiVersion"] == api_version || writing.target.resource.custom {
        return None;
    }
    let api_version = api_version.strip_prefix('/').unwrap_or(api_version);
    let ty = codec::known_type(&writing.state.catalogue(), api_version, live["kind"].as_str()?)?;
    Some((api_version.to_owned(), ty))
}

/// Without a version a document is read as what the server holds inside, whose fields have other names: none is known.
fn unread(patched: &Value) -> impl Iterator<Item = String> + '_ {
    let names = patched.as_object().into_iter().flatten().map(|(name, _)| name);
    names.filter(|name| !matches!(name.as_str(), "apiVersion" | "kind")).map(|name| format!("unknown field \"{name}\""))
}

/// What is wrong when a patch says that the document is of another kind: then nothing can be decoded.
fn other_type(writing: &Writing<'_>, live: &Value, patched: &Value) -> Option<String> {
    for field in ["apiVersion", "kind"] {
        let found = match &patched[field] {
            Value::Null | Value::String(_) => continue,
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let mismatch = format!("json: cannot unmarshal {found} into Go struct field .{field} of type string");
        return Some(format!("couldn't get version/kind; json parse error: {mismatch}"));
    }
    let text = |document: &Value, field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let api_version = text(patched, "apiVersion");
    let kind = Some(text(patched, "kind")).filter(|kind| !kind.is_empty()).unwrap_or_else(|| text(live, "kind"));
    let same = live["apiVersion"] == api_version && live["kind"] == kind;
    if same || writing.target.resource.custom || is_internal(writing, patched) {
        return None;
    }
    codec::why_other_kind(writing, &kind, &api_version)
}

impl Change for Patching {
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status> {
        let live = live.ok_or_else(|| writing.target.not_found(&self.name))?;
        let mut document = self.apply(writing, live)?;
        check_identity(writing, &mut document, live, &self.name)?;
        Ok(document)
    }

    fn retries(&self) -> bool {
        true
    }

    fn takes_folded(&self, target: &Target) -> bool {
        // Otherwise the patched document is read as a whole, as if it came from a client.
        let reads_changes = self.ty.is_some() && self.is_of_stored && target.is_stored_form();
        reads_changes && self.patch.as_ref().is_ok_and(|patch| !patch.concerns_managed_fields())
    }

    fn relabels(&self, target: &Target) -> bool {
        self.takes_folded(target) && self.patch.as_ref().is_ok_and(Patch::relabels)
    }
}

/// A patch may not make another object of the one it patches.
fn check_identity(writing: &Writing<'_>, document: &mut Value, live: &Value, name: &str) -> Result<(), Status> {
    for field in ["kind", "apiVersion"] {
        if document[field].as_str().unwrap_or_default().is_empty() {
            document[field] = live[field].clone();
        } else if document[field] != live[field] {
            return Err(codec::wrong_kind(writing, document));
        }
    }
    write::check_place(writing, document, name)
}

/// Server-side apply.
pub(crate) struct Applying {
    pub applied: Configuration,
    pub force: bool,
    pub name: String,
    pub creates: bool,
}

impl Change for Applying {
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status> {
        let document = managed::apply(writing, live, &self.applied.document, self.force)?;
        let uid = meta_text(&document, "uid");
        if live.is_none() && !uid.is_empty() {
            let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(writing.target.conflict(&self.name, &why));
        }
        self.applied.check(writing, &document, &self.name)?;
        Ok(document)
    }

    fn creates(&self) -> bool {
        self.creates
    }

    fn ownership(&self) -> Ownership {
        Ownership::Given
    }

    fn retries(&self) -> bool {
        true
    }
}

fn field_validation(validation: Validation) -> FieldValidation {
    match validation {
        Validation::Ignore => FieldValidation::Ignore,
        Validation::Warn => FieldValidation::Warn,
        Validation::Strict => FieldValidation::Strict,
    }
}
