//! The status page: everything that a person looks for first, as one HTML file that names nothing outside itself.
//!
//! It is written here as a whole, plots included, and works without scripts. The script that comes with it only fetches the
//! page again, puts the newer parts in their places, and tells how fast counters rise. Everything that came from elsewhere is
//! escaped by the templates ([`template`]), and the policy that goes with the page ([`policy`]) lets nothing else run.

mod asked;
mod history;
mod template;

pub use asked::Asked;
pub use history::{Counts, History, Sample};
pub use template::{span, write};

use crate::config::answer::Status;
use crate::config::events::Event;
use crate::explain::Explanation;
use std::sync::LazyLock;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page shows.
#[derive(Debug)]
pub struct View<'a> {
    /// Of the clusters only those that are shown.
    pub status: Status,
    /// Their names, those in trouble first.
    pub order: Vec<String>,
    /// Clusters that there are, and of them those that fit what is looked for.
    pub clusters: (usize, usize),
    /// Of all clusters, those in trouble.
    pub troubled: usize,
    /// Endpoints of all clusters by state: up, down, drain, maint.
    pub endpoints: [usize; 4],
    /// Whether health checks are told that traffic is welcome.
    pub ready: bool,
    /// The latest reload was rejected: the file is not what runs.
    pub refused: bool,
    /// The latest seconds.
    pub history: &'a History,
    /// The latest events, the newest first.
    pub events: Vec<Event>,
    /// What was asked for.
    pub asked: &'a Asked,
    /// The answer to what was asked in the explain box.
    pub explained: Option<Result<Explanation, String>>,
    /// Seconds since 1970.
    pub now: u64,
}

/// Value of Content-Security-Policy: only the page's own style and script, only itself to be fetched and asked, and in no
/// frame of another's.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let of = |text: &str| base64(&hmac_sha256::Hash::hash(text.as_bytes()));
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
            of(STYLE),
            of(SCRIPT)
        )
    });
    &POLICY
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63])).into_iter().take(chunk.len() + 1)
    };
    let mut text: String = bytes.chunks(3).flat_map(digits).collect();
    text.push_str(&"="[..].repeat((3 - bytes.len() % 3) % 3));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn the_policy_names_both_hashes_and_the_page_names_nothing_outside() {
        assert_eq!(policy().matches("'sha256-").count(), 2, "{}", policy());
        for text in [STYLE, SCRIPT] {
            for outside in ["http:", "https:", "//", "@import", "url(", "</", "eval"] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
    }
}
