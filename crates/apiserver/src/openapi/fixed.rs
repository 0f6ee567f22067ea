//! Operations that are not about resources: discovery, the version, and the documents of service accounts' issuer.

use serde_json::{Map, Value, json};

use super::paths::{self, BODIES, answer, capitalized, group_word};
use super::schemas::{Dialect, Schemas};

/// Documents of `/openapi/v3` besides those of group versions and groups.
pub(super) const DOCUMENTS: [&str; 5] = [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"];

/// The path of one of [`DOCUMENTS`].
pub(super) fn of(name: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let get = match name {
        "api" => Get {
            id: "getCoreAPIVersions".into(),
            tag: "core".into(),
            description: "get available API versions",
            gives: schemas.reference("meta.v1.APIVersions"),
            types: &BODIES,
        },
        "apis" => Get {
            id: "getAPIVersions".into(),
            tag: "apis".into(),
            description: "get available API versions",
            gives: schemas.reference("meta.v1.APIGroupList"),
            types: &BODIES,
        },
        "version" => Get {
            id: "getCodeVersion".into(),
            tag: "version".into(),
            description: "get the version information for this server",
            gives: schemas.version(),
            types: &["application/json"],
        },
        "openid/v1/jwks" => Get {
            id: "getServiceAccountIssuerOpenIDKeyset".into(),
            tag: "openid".into(),
            description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            gives: json!({"type": "string"}),
            types: &["application/jwk-set+json"],
        },
        _ => Get {
            id: "getServiceAccountIssuerOpenIDConfiguration".into(),
            tag: "WellKnown".into(),
            description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            gives: json!({"type": "string"}),
            types: &["application/json"],
        },
    };
    one(schemas, format!("/{name}/"), get)
}

/// `/apis/GROUP/`
pub(super) fn of_group(group: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let get = Get {
        id: format!("get{}APIGroup", group_word(group)),
        tag: paths::tag(group, ""),
        description: "get information of a group",
        gives: schemas.reference("meta.v1.APIGroup"),
        types: &BODIES,
    };
    one(schemas, format!("/apis/{group}/"), get)
}

/// `/api/VERSION/` and `/apis/GROUP/VERSION/`
pub(super) fn of_version(group: &str, version: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let path = if group.is_empty() { format!("/api/{version}/") } else { format!("/apis/{group}/{version}/") };
    let get = Get {
        id: format!("get{}{}APIResources", group_word(group), capitalized(version)),
        tag: paths::tag(group, version),
        description: "get available resources",
        gives: schemas.reference("meta.v1.APIResourceList"),
        types: &BODIES,
    };
    one(schemas, path, get)
}

struct Get<'a> {
    id: String,
    tag: String,
    description: &'a str,
    gives: Value,
    types: &'a [&'a str],
}

fn one(schemas: &Schemas, path: String, get: Get<'_>) -> Map<String, Value> {
    let responses =
        json!({"200": answer(schemas.dialect, "200", Some(&get.gives), get.types), "401": {"description": "Unauthorized"}});
    let mut operation = json!({"operationId": get.id, "tags": [get.tag], "description": get.description, "responses": responses});
    if schemas.dialect == Dialect::V2 {
        // The documents of the issuer are no API types: nothing is said of what their requests hold.
        if get.gives.get("$ref").is_some() {
            operation["consumes"] = json!(get.types);
        }
        operation["produces"] = json!(get.types);
        operation["schemes"] = json!(["https"]);
    }
    Map::from_iter([(path, paths::item(schemas, vec![("get", operation, Vec::new())]))])
}
