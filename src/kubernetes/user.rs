//! A user, as Kubernetes describes one.

use std::collections::BTreeMap;

/// The user whom nobody vouched for.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of everyone whom somebody vouched for.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of the others.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// A user: as a front proxy, a client certificate or the review of a token describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The user's UID, if it was given.
    pub uid: Option<String>,
    /// The user's groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// More about the user, by lower-case key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Adds the group of the authenticated, unless it is said already which of the two groups it is.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        let says_which = self.groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED);
        if self.user != ANONYMOUS && !says_which {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The namespace of a service account; `None`: the user is none.
    #[must_use]
    pub fn service_account_namespace(&self) -> Option<&str> {
        let (namespace, name) = self.user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty()).then_some(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(user: &str) -> Identity {
        Identity { user: user.to_owned(), ..Identity::default() }
    }

    #[test]
    fn a_service_account_lies_in_a_namespace_and_others_do_not() {
        let namespace = |user| named(user).service_account_namespace().map(str::to_owned);
        assert_eq!(namespace("system:serviceaccount:shop:web"), Some("shop".to_owned()));
        for user in ["alice", "system:serviceaccount:shop", "system:serviceaccount::web", "system:node:n1"] {
            assert_eq!(namespace(user), None, "{user}");
        }
    }

    #[test]
    fn everyone_but_the_anonymous_is_among_the_authenticated() {
        assert_eq!(named("alice").authenticated().authenticated().groups, [AUTHENTICATED]);
        assert!(named(ANONYMOUS).authenticated().groups.is_empty());
    }
}
