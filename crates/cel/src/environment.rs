//! Which names an expression may use: variables, the fields of messages, functions.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::ast::Expr;
use crate::declare::Functions;
use crate::issue::Issues;
use crate::types::Type;
use crate::{check, library, parse, validate};

/// Expressions of more tokens than any hand-written one are compiled on a stack of their own: nesting is bounded, but not
/// so low that it fits a server thread's stack for sure.
const LONG: usize = 256;
const STACK: usize = 64 << 20;

/// Fields of a message by name.
pub type Fields = HashMap<String, Type>;

/// Where an expression is compiled: the libraries of v1.36 and what was added.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: HashMap<String, Type>,
    messages: HashMap<String, Arc<Fields>>,
    functions: Arc<Functions>,
    patches: bool,
    bind: bool,
}

/// An expression with the type of each part.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The tree.
    pub expr: Expr,
    /// The type of each node, by its id.
    pub types: Vec<Type>,
    /// Where each node starts in the text, in characters, by its id.
    pub offsets: Vec<u32>,
}

impl Checked {
    /// The type of the whole.
    #[must_use]
    pub fn output(&self) -> &Type {
        &self.types[self.expr.id as usize]
    }
}

impl Environment {
    /// The language and the libraries, no variable.
    #[must_use]
    pub fn base() -> Self {
        static BASE: OnceLock<Arc<Functions>> = OnceLock::new();
        let functions = BASE.get_or_init(|| {
            let mut functions = Functions::default();
            library::BASE.into_iter().for_each(|lines| functions.declare(lines));
            Arc::new(functions)
        });
        Self { variables: HashMap::new(), messages: HashMap::new(), functions: functions.clone(), patches: false, bind: false }
    }

    /// Declares a variable; its name may have dots.
    #[must_use]
    pub fn variable(mut self, name: &str, kind: Type) -> Self {
        self.variables.insert(name.to_owned(), kind);
        self
    }

    /// Declares a message.
    #[must_use]
    pub fn message(mut self, name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        self.messages.insert(name.to_owned(), Arc::new(fields));
        self
    }

    /// Adds a field to a message, which is declared if it is not yet.
    pub fn add_field(&mut self, message: &str, field: &str, kind: Type) {
        let fields = self.messages.entry(message.to_owned()).or_default();
        Arc::make_mut(fields).insert(field.to_owned(), kind);
    }

    /// Adds what makes patches: the messages `Object`, `Object.spec` and so on, which take any field, `JSONPatch`, and
    /// `jsonpatch.escapeKey`.
    #[must_use]
    pub fn patches(mut self) -> Self {
        let mut functions = Functions::clone(&self.functions);
        functions.declare(library::JSON_PATCH);
        self.functions = Arc::new(functions);
        self.patches = true;
        self
    }

    /// Enables `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn bind(mut self) -> Self {
        self.bind = true;
        self
    }

    /// Compiles `text`.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, in the words of cel-go.
    pub fn compile(&self, text: &str) -> Result<Checked, Issues> {
        if text.len() < LONG {
            return self.compile_here(text);
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK);
            match thread.spawn_scoped(scope, || self.compile_here(text)) {
                Ok(compiling) => compiling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => {
                    let mut issues = Issues::new(text);
                    issues.report(None, "no memory to compile the expression");
                    Err(issues)
                }
            }
        })
    }

    fn compile_here(&self, text: &str) -> Result<Checked, Issues> {
        let parsed = parse::parse(text, self.bind)?;
        let mut issues = Issues::new(text);
        let checked = check::check(self, parsed, &mut issues);
        if issues.is_empty() {
            validate::validate(&checked, &mut issues);
        }
        if issues.is_empty() { Ok(checked) } else { Err(issues) }
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The type of a variable, or of the type that has this name.
    pub(crate) fn name(&self, name: &str) -> Option<Type> {
        if let Some(kind) = self.variables.get(name) {
            return Some(kind.clone());
        }
        self.type_name(name).map(|kind| Type::Type(Some(Arc::new(kind))))
    }

    /// The type called `name`.
    pub(crate) fn type_name(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "string" => Type::String,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            _ if self.has_message(name) => Type::structure(name),
            _ => return None,
        })
    }

    pub(crate) fn has_message(&self, name: &str) -> bool {
        self.messages.contains_key(name)
            || self.patches && (name == "JSONPatch" || name == "Object" || name.starts_with("Object."))
    }

    /// The type of a message's field.
    pub(crate) fn field(&self, message: &str, field: &str) -> Option<Type> {
        if self.patches && message == "JSONPatch" {
            return Some(match field {
                "op" | "from" | "path" => Type::String,
                "value" => Type::Dyn,
                _ => Type::Unspecified,
            });
        }
        if self.patches && (message == "Object" || message.starts_with("Object.")) {
            return Some(Type::Dyn);
        }
        self.messages.get(message)?.get(field).cloned()
    }
}
