//! Against guessing: who sends wrong credentials has to wait.
//!
//! Each address may be wrong [`AT_ONCE`] times, and then once a second. While it waits its requests
//! with credentials are refused unread, except for a credential that was right there before: others
//! behind the same address translation go on.

use crate::http::connection::Peer;
use crate::http::error::ApiError;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use ring::digest::{SHA256, digest};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How many wrong credentials an address may send at once.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// How many wrong ones it may send a second after that.
const A_SECOND: NonZeroU32 = NonZeroU32::new(1).expect("not zero");
/// Most addresses and right credentials that are remembered. Past that all new addresses count as one.
const REMEMBERED_MAX: usize = 10_000;
/// How long a right credential is remembered after its last use.
const KNOWN: Duration = Duration::from_secs(3_600);

/// Counts wrong credentials by address.
pub struct Guesses {
    wrong: DefaultKeyedRateLimiter<IpAddr>,
    /// Until when an address has to wait.
    waiting: Cache<IpAddr, Instant>,
    /// Digests of credentials that were right, with the address.
    right: Cache<(IpAddr, [u8; 32]), ()>,
}

impl Default for Guesses {
    fn default() -> Self {
        let remembered_max = REMEMBERED_MAX as u64;
        Self {
            wrong: RateLimiter::keyed(Quota::per_second(A_SECOND).allow_burst(AT_ONCE)),
            waiting: Cache::builder().max_capacity(remembered_max).time_to_live(KNOWN).build(),
            right: Cache::builder().max_capacity(remembered_max).time_to_idle(KNOWN).build(),
        }
    }
}

/// The credentials of one request, before they are looked at.
pub(super) struct Guess {
    address: IpAddr,
    credential: [u8; 32],
}

impl Guesses {
    /// Lets a request with credentials go on to be checked; `None`: it has none.
    ///
    /// # Errors
    /// 429, where its address has been wrong too often.
    pub(super) fn admit(&self, request: &Parts) -> Result<Option<Guess>, ApiError> {
        let Some(value) = request.headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let mut credential = [0; 32];
        credential.copy_from_slice(digest(&SHA256, value.as_bytes()).as_ref());
        let guess = Guess { address: address(request), credential };
        let left = self.waiting.get(&guess.address).map(|until| until.duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(left) if !self.right.contains_key(&(guess.address, credential)) => Err(too_many(left)),
            _ => Ok(Some(guess)),
        }
    }

    /// The credentials were right.
    pub(super) fn right(&self, guess: &Guess) {
        // Reading it first: it is nearly always there, and reading is what keeps it.
        let key = (guess.address, guess.credential);
        if self.right.get(&key).is_none() {
            self.right.insert(key, ());
        }
    }

    /// The credentials were wrong.
    pub(super) fn wrong(&self, guess: &Guess) {
        if self.wrong.len() >= REMEMBERED_MAX {
            self.wrong.retain_recent();
        }
        let crowded = self.wrong.len() >= REMEMBERED_MAX;
        let counted = if crowded { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { guess.address };
        if let Err(not_until) = self.wrong.check_key(&counted) {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            self.waiting.insert(guess.address, Instant::now() + wait);
        }
    }
}

/// The address that is counted: of IPv6, the network that one customer usually has.
fn address(request: &Parts) -> IpAddr {
    let address = request.extensions.get::<Peer>().map(|peer| peer.address.ip().to_canonical());
    match address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

fn too_many(left: Duration) -> ApiError {
    let seconds = left.as_secs() + 1;
    let message = format!("too many wrong credentials from this address: try again in {seconds} s");
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
    error.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn request(address: [u8; 4], token: &str) -> Parts {
        let request = Request::get("/").header("Authorization", token).body(()).expect("a request");
        let mut parts = request.into_parts().0;
        parts.extensions.insert(Peer { address: (address, 1).into(), certificates: None });
        parts
    }

    #[test]
    fn a_guesser_has_to_wait_and_known_neighbours_do_not() {
        let (guesses, home) = (Guesses::default(), [10, 0, 0, 1]);
        let admitted = |address, token: &str| guesses.admit(&request(address, token));
        guesses.right(&admitted(home, "good").expect("admitted").expect("a guess"));
        let refused = (0..10_000).find_map(|index| match admitted(home, &format!("guess {index}")) {
            Ok(guess) => {
                guesses.wrong(&guess.expect("a guess"));
                None
            }
            Err(error) => Some((index, error)),
        });
        let (index, error) = refused.expect("refused in the end");
        assert!(index >= 20, "{index}");
        assert_eq!((error.code, error.headers.len()), (StatusCode::TOO_MANY_REQUESTS, 1));
        assert!(admitted(home, "good").is_ok(), "what was right before goes on");
        assert!(admitted([10, 0, 0, 2], "guess").is_ok(), "other addresses go on");
        let without = Request::get("/").body(()).expect("a request").into_parts().0;
        assert!(guesses.admit(&without).expect("admitted").is_none());
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let guesses = Guesses::default();
        for index in 0..REMEMBERED_MAX + 100 {
            let [.., a, b, c] = index.to_be_bytes();
            let guess = Guess { address: IpAddr::from([10, a, b, c]), credential: [0; 32] };
            guesses.wrong(&guess);
        }
        assert!(guesses.wrong.len() <= REMEMBERED_MAX + 1, "{}", guesses.wrong.len());
    }
}
