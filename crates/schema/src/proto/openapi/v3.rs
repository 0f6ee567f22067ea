//! The messages of `openapi.v3`, as far as an API server's documents use them.

use super::Shape::{Choice, Count, Flag, List, Listed, Message as Of, Number, Open, Text};
use super::{Case, Message, Shape, When};

pub(super) static DOCUMENT: Message = Message::new(
    &[
        ("openapi", 1, Text),
        ("info", 2, Of(&INFO)),
        ("paths", 4, Of(&PATHS)),
        ("components", 5, Of(&COMPONENTS)),
        ("security", 6, List(&REQUIREMENT)),
    ],
    9,
);

static INFO: Message = Message::new(&[("title", 1, Text), ("description", 2, Text), ("version", 6, Text)], 7);

static COMPONENTS: Message = Message::new(
    &[
        ("schemas", 1, Of(&SCHEMAS)),
        ("responses", 2, Of(&RESPONSE_MAP)),
        ("parameters", 3, Of(&PARAMETERS)),
        ("requestBodies", 5, Of(&REQUEST_BODIES)),
        ("securitySchemes", 7, Of(&SECURITY_SCHEMES)),
    ],
    10,
);

static REQUIREMENT: Shape = Of(&Message::map(&Listed(&Text)));

static REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], extensions: None, pairs: None };

static PATHS: Message = Message::new(&[], 2).with_pairs(1, &Of(&PATH_ITEM));

static PATH_ITEM: Message = Message::new(
    &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, Of(&OPERATION)),
        ("put", 5, Of(&OPERATION)),
        ("post", 6, Of(&OPERATION)),
        ("delete", 7, Of(&OPERATION)),
        ("options", 8, Of(&OPERATION)),
        ("head", 9, Of(&OPERATION)),
        ("patch", 10, Of(&OPERATION)),
        ("trace", 11, Of(&OPERATION)),
        ("parameters", 13, List(&Choice(&PARAMETER_OR_REFERENCE))),
    ],
    14,
);

static OPERATION: Message = Message::new(
    &[
        ("tags", 1, List(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("parameters", 6, List(&Choice(&PARAMETER_OR_REFERENCE))),
        ("requestBody", 7, Choice(&REQUEST_BODY_OR_REFERENCE)),
        ("responses", 8, Of(&RESPONSES)),
        ("deprecated", 10, Flag),
        ("security", 11, List(&REQUIREMENT)),
    ],
    13,
);

static PARAMETERS: Message = Message::map(&Choice(&PARAMETER_OR_REFERENCE));

static PARAMETER_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&PARAMETER) },
];

static PARAMETER: Message = Message::new(
    &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Flag),
        ("deprecated", 5, Flag),
        ("allowEmptyValue", 6, Flag),
        ("style", 7, Text),
        ("explode", 8, Flag),
        ("allowReserved", 9, Flag),
        ("schema", 10, Choice(&SCHEMA_OR_REFERENCE)),
        ("example", 11, Open),
        ("content", 13, Of(&MEDIA_TYPES)),
    ],
    14,
);

static REQUEST_BODIES: Message = Message::map(&Choice(&REQUEST_BODY_OR_REFERENCE));

static REQUEST_BODY_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&REQUEST_BODY) },
];

static REQUEST_BODY: Message =
    Message::new(&[("description", 1, Text), ("content", 2, Of(&MEDIA_TYPES)), ("required", 3, Flag)], 4);

static RESPONSES: Message =
    Message::new(&[("default", 1, Choice(&RESPONSE_OR_REFERENCE))], 3).with_pairs(2, &Choice(&RESPONSE_OR_REFERENCE));

static RESPONSE_MAP: Message = Message::map(&Choice(&RESPONSE_OR_REFERENCE));

static RESPONSE_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&RESPONSE) },
];

static RESPONSE: Message = Message::new(&[("description", 1, Text), ("content", 3, Of(&MEDIA_TYPES))], 5);

static MEDIA_TYPES: Message = Message::map(&Of(&MEDIA_TYPE));

static MEDIA_TYPE: Message = Message::new(&[("schema", 1, Choice(&SCHEMA_OR_REFERENCE)), ("example", 2, Open)], 5);

static SCHEMAS: Message = Message::map(&Choice(&SCHEMA_OR_REFERENCE));

static SCHEMA_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&SCHEMA) },
];

static SCHEMA: Message = Message::new(
    &[
        ("nullable", 1, Flag),
        ("readOnly", 3, Flag),
        ("writeOnly", 4, Flag),
        ("externalDocs", 6, Of(&EXTERNAL_DOCS)),
        ("example", 7, Open),
        ("deprecated", 8, Flag),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Count),
        ("minLength", 16, Count),
        ("pattern", 17, Text),
        ("maxItems", 18, Count),
        ("minItems", 19, Count),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Count),
        ("minProperties", 22, Count),
        ("required", 23, List(&Text)),
        ("enum", 24, List(&Open)),
        ("type", 25, Text),
        ("allOf", 26, List(&Choice(&SCHEMA_OR_REFERENCE))),
        ("oneOf", 27, List(&Choice(&SCHEMA_OR_REFERENCE))),
        ("anyOf", 28, List(&Choice(&SCHEMA_OR_REFERENCE))),
        ("not", 29, Of(&SCHEMA)),
        ("items", 30, Listed(&Choice(&SCHEMA_OR_REFERENCE))),
        ("properties", 31, Of(&SCHEMAS)),
        ("additionalProperties", 32, Choice(&ADDITIONAL)),
        ("default", 33, Choice(&DEFAULT)),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    36,
);

static ADDITIONAL: [Case; 2] = [
    Case { when: When::Object, number: 1, shape: Choice(&SCHEMA_OR_REFERENCE) },
    Case { when: When::Flag, number: 2, shape: Flag },
];

/// There is no place for an object or a list: what is left of such a default is that there is one.
static DEFAULT: [Case; 3] = [
    Case { when: When::Number, number: 1, shape: Number },
    Case { when: When::Flag, number: 2, shape: Flag },
    Case { when: When::Text, number: 3, shape: Text },
];

static EXTERNAL_DOCS: Message = Message::new(&[("description", 1, Text), ("url", 2, Text)], 3);

static SECURITY_SCHEMES: Message = Message::map(&Choice(&[
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&SECURITY_SCHEME) },
]));

static SECURITY_SCHEME: Message = Message::new(
    &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("openIdConnectUrl", 8, Text),
    ],
    9,
);
