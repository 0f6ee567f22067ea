//! The static token file (`--token-auth-file`): CSV lines of token, user, uid and optional groups.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::AuthnError;
use crate::user::User;

/// Users by the digest of their token, so that a look-up takes the same time whatever a wrong token looks like.
#[derive(Default)]
pub(super) struct StaticTokens {
    users: HashMap<[u8; 32], User>,
}

impl StaticTokens {
    pub(super) fn read(path: &Path) -> Result<Self, AuthnError> {
        let text = std::fs::read_to_string(path).map_err(|source| AuthnError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|line| AuthnError::TokenLine { path: path.to_owned(), line })
    }

    /// Fails with the number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else { return Err(number + 1) };
            if token.is_empty() {
                return Err(number + 1);
            }
            let groups = rest.first().map(|groups| groups.split(',').map(|group| group.trim().to_owned()));
            let groups = groups.into_iter().flatten().filter(|group| !group.is_empty()).collect();
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            users.insert(digest(token), user); // the last line of a token counts, as upstream
        }
        Ok(Self { users })
    }

    pub(super) fn user(&self, token: &str) -> Option<&User> {
        self.users.get(&digest(token))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The columns of a CSV line (RFC 4180): quoted ones may hold commas and doubled quotes.
fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end().chars().peekable();
    while let Some(c) = chars.next() {
        let column = columns.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                column.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            c => column.push(c),
        }
    }
    columns.into_iter().map(|column| column.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_csv() {
        let tokens = StaticTokens::parse("t1,alice,1,\"dev,ops\"\n\n# note\nt2,bob,2\nt3,\"b,c\",3,solo\n").unwrap();
        let user = |token| tokens.user(token).cloned();
        assert_eq!(user("t1").unwrap().groups, ["dev", "ops"]);
        assert_eq!(user("t2").unwrap(), User { uid: "2".into(), ..User::new("bob", &[]) });
        assert_eq!(user("t3").unwrap().name, "b,c");
        assert_eq!(user("t4"), None);
        assert_eq!(StaticTokens::parse("t,alice\n").err(), Some(1));
        assert_eq!(StaticTokens::parse("t,a,1\n,b,2\n").err(), Some(2));
    }
}
