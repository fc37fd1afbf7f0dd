//! Entity tags (RFC 9110, 8.8.3): an answer that the client has already is not sent again.
//!
//! A tag is made of the answer itself, each time it is asked for: it can't be stale. What is saved is the
//! transfer. History may still change, by samples that come late, imports and deletes, so an answer is
//! never to be used without asking again: `Cache-Control: private, no-cache`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foldhash::quality::{FixedState, FoldHasher};
use std::hash::{BuildHasher, Hash, Hasher};

/// What makes a tag of an answer: the same in each process, and fast enough for each point of a large one.
pub type TagHasher = FoldHasher<'static>;

/// The tag of an answer. Weak: a compressed form of the answer has the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag(u64);

impl EntityTag {
    /// The tag of what `hash` puts in.
    pub fn of(hash: impl FnOnce(&mut TagHasher)) -> Self {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        // Another version may write the same answer differently.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        hash(&mut hasher);
        Self(hasher.finish())
    }

    /// 304 where the client has this answer; `None`: it is to be sent.
    #[must_use]
    pub fn not_modified(self, request: &HeaderMap) -> Option<Response> {
        let own = self.text();
        let opaque = own.trim_start_matches("W/");
        let has = request.get_all(header::IF_NONE_MATCH).iter().any(|value| {
            let tags = value.to_str().unwrap_or_default().split(',');
            tags.map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == opaque)
        });
        has.then(|| self.mark(StatusCode::NOT_MODIFIED.into_response()))
    }

    /// The answer with its tag.
    #[must_use]
    pub fn mark(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::try_from(self.text()) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        response
    }

    fn text(self) -> String {
        format!("W/\"{:016x}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_answer_is_told_so_and_no_other() {
        let tag = EntityTag::of(|hasher| 1.hash(hasher));
        let asked = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a header");
            tag.not_modified(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]))
        };
        let text = tag.text();
        for held in [&text, &format!("\"x\", {text}"), text.trim_start_matches("W/"), "*"] {
            let answer = asked(held).expect("not modified");
            assert_eq!(answer.status(), 304);
            assert_eq!(answer.headers()[header::ETAG], text);
        }
        assert!(asked("\"x\"").is_none() && tag.not_modified(&HeaderMap::new()).is_none());
        assert_ne!(tag, EntityTag::of(|hasher| 2.hash(hasher)));
    }
}
