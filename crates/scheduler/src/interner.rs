//! Strings of nodes as small numbers, so that filters compare integers.
//!
//! Only what nodes say is interned (label keys and values, taints, resource and image names): that is bounded by the
//! cluster. What pods say is looked up, never added: a key that no node has matches nothing.

use std::collections::HashMap;
use std::sync::Arc;

/// A string that some node said.
pub type Id = u32;

/// The strings.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    ids: HashMap<Arc<str>, Id>,
    texts: Vec<Arc<str>>,
}

impl Interner {
    /// The number of `text`, new or known.
    pub fn intern(&mut self, text: &str) -> Id {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let text: Arc<str> = Arc::from(text);
        let id = Id::try_from(self.texts.len()).expect("fewer than four billion strings");
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }

    /// The number of `text`, if some node said it.
    #[must_use]
    pub fn lookup(&self, text: &str) -> Option<Id> {
        self.ids.get(text).copied()
    }

    /// The string.
    #[must_use]
    pub fn text(&self, id: Id) -> &str {
        &self.texts[id as usize]
    }
}
