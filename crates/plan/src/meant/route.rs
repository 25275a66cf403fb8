//! What `[[route]]` means: which requests go elsewhere than to the servers of `[balancer]`, and how they change.

use serde::{Deserialize, Serialize};

/// The first route that matches a request is the only one that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Lowercase; `*.foobar.com` is every name below foobar.com. Empty: any.
    pub hosts: Vec<String>,
    /// The path itself and all below it. None: any.
    pub path: Option<String>,
    /// Empty: any.
    pub methods: Vec<String>,
    pub to: To,
    pub rewrite: Rewrite,
    pub request: FieldEdits,
    pub answer: FieldEdits,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// By name; empty: the servers of `[balancer]`.
    Pool(String),
    /// `location` may contain `{uri}` (path and query), `{path}` and `{host}`.
    Redirect { location: String, status: u16 },
}

/// Another path for the server behind: without `strip` at its beginning, then with `prepend` before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    pub strip: Option<String>,
    pub prepend: Option<String>,
}

/// Changes to the fields of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldEdits {
    /// Each in place of all of its name.
    pub set: Vec<(String, String)>,
    /// Each beside those of its name.
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}
