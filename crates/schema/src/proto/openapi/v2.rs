//! The messages of `openapi.v2`, as far as an API server's documents use them.

use super::Shape::{Choice, Count, Flag, List, Listed, Message as Of, Number, Open, Text};
use super::{Case, Message, Shape, When};

pub(super) static DOCUMENT: Message = Message::new(
    &[
        ("swagger", 1, Text),
        ("info", 2, Of(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, List(&Text)),
        ("consumes", 6, List(&Text)),
        ("produces", 7, List(&Text)),
        ("paths", 8, Of(&PATHS)),
        ("definitions", 9, Of(&SCHEMAS)),
        ("parameters", 10, Of(&PARAMETERS)),
        ("security", 12, List(&REQUIREMENT)),
        ("securityDefinitions", 13, Of(&SECURITY)),
    ],
    16,
);

static INFO: Message = Message::new(&[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], 7);

static PATHS: Message = Message::new(&[], 1).with_pairs(2, &Of(&PATH_ITEM));

static PATH_ITEM: Message = Message::new(
    &[
        ("$ref", 1, Text),
        ("get", 2, Of(&OPERATION)),
        ("put", 3, Of(&OPERATION)),
        ("post", 4, Of(&OPERATION)),
        ("delete", 5, Of(&OPERATION)),
        ("options", 6, Of(&OPERATION)),
        ("head", 7, Of(&OPERATION)),
        ("patch", 8, Of(&OPERATION)),
        ("parameters", 9, List(&Choice(&PARAMETER_OR_REFERENCE))),
    ],
    10,
);

static OPERATION: Message = Message::new(
    &[
        ("tags", 1, List(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, List(&Text)),
        ("consumes", 7, List(&Text)),
        ("parameters", 8, List(&Choice(&PARAMETER_OR_REFERENCE))),
        ("responses", 9, Of(&RESPONSES)),
        ("schemes", 10, List(&Text)),
        ("deprecated", 11, Flag),
        ("security", 12, List(&REQUIREMENT)),
    ],
    13,
);

static REQUIREMENT: Shape = Of(&Message::map(&Listed(&Text)));

static REFERENCE: Message = Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: None, pairs: None };

static PARAMETERS: Message = Message::map(&Choice(&PARAMETER));

static PARAMETER_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Choice(&PARAMETER) },
];

static PARAMETER: [Case; 2] = [
    Case { when: When::Is("in", "body"), number: 1, shape: Of(&BODY) },
    Case { when: When::Object, number: 2, shape: Choice(&NON_BODY) },
];

static NON_BODY: [Case; 4] = [
    Case { when: When::Is("in", "header"), number: 1, shape: Of(&HEADER_OR_PATH) },
    Case { when: When::Is("in", "formData"), number: 2, shape: Of(&QUERY_OR_FORM) },
    Case { when: When::Is("in", "query"), number: 3, shape: Of(&QUERY_OR_FORM) },
    Case { when: When::Is("in", "path"), number: 4, shape: Of(&HEADER_OR_PATH) },
];

static BODY: Message = Message::new(
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, Of(&SCHEMA))],
    6,
);

static QUERY_OR_FORM: Message = Message::new(
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Flag),
        ("type", 6, Text),
        ("format", 7, Text),
        ("items", 8, Of(&PRIMITIVE)),
        ("collectionFormat", 9, Text),
        ("default", 10, Open),
        ("pattern", 17, Text),
        ("uniqueItems", 20, Flag),
        ("enum", 21, List(&Open)),
    ],
    23,
);

static HEADER_OR_PATH: Message = Message::new(
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("items", 7, Of(&PRIMITIVE)),
        ("collectionFormat", 8, Text),
        ("default", 9, Open),
        ("pattern", 16, Text),
        ("uniqueItems", 19, Flag),
        ("enum", 20, List(&Open)),
    ],
    22,
);

static PRIMITIVE: Message = Message::new(
    &[
        ("type", 1, Text),
        ("format", 2, Text),
        ("items", 3, Of(&PRIMITIVE)),
        ("collectionFormat", 4, Text),
        ("default", 5, Open),
        ("pattern", 12, Text),
        ("uniqueItems", 15, Flag),
        ("enum", 16, List(&Open)),
    ],
    18,
);

static RESPONSES: Message = Message::new(&[], 2).with_pairs(1, &Choice(&RESPONSE_OR_REFERENCE));

static RESPONSE_OR_REFERENCE: [Case; 2] = [
    Case { when: When::Has("$ref"), number: 2, shape: Of(&REFERENCE) },
    Case { when: When::Object, number: 1, shape: Of(&RESPONSE) },
];

static RESPONSE: Message = Message::new(
    &[("description", 1, Text), ("schema", 2, Choice(&[Case { when: When::Object, number: 1, shape: Of(&SCHEMA) }]))],
    5,
);

static SCHEMAS: Message = Message::map(&Of(&SCHEMA));

static SCHEMA: Message = Message::new(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Open),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Count),
        ("minLength", 12, Count),
        ("pattern", 13, Text),
        ("maxItems", 14, Count),
        ("minItems", 15, Count),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Count),
        ("minProperties", 18, Count),
        ("required", 19, List(&Text)),
        ("enum", 20, List(&Open)),
        ("additionalProperties", 21, Choice(&SCHEMA_OR_FLAG)),
        ("type", 22, Listed(&Text)),
        ("items", 23, Listed(&Of(&SCHEMA))),
        ("allOf", 24, List(&Of(&SCHEMA))),
        ("properties", 25, Of(&SCHEMAS)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Flag),
        ("externalDocs", 29, Of(&EXTERNAL_DOCS)),
        ("example", 30, Open),
    ],
    31,
);

static SCHEMA_OR_FLAG: [Case; 2] =
    [Case { when: When::Object, number: 1, shape: Of(&SCHEMA) }, Case { when: When::Flag, number: 2, shape: Flag }];

static EXTERNAL_DOCS: Message = Message::new(&[("description", 1, Text), ("url", 2, Text)], 3);

static SECURITY: Message = Message::map(&Choice(&[
    Case { when: When::Is("type", "basic"), number: 1, shape: Of(&BASIC) },
    Case { when: When::Is("type", "apiKey"), number: 2, shape: Of(&API_KEY) },
]));

static BASIC: Message = Message::new(&[("type", 1, Text), ("description", 2, Text)], 3);

static API_KEY: Message = Message::new(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);
