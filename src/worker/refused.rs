//! What is kept of a refused message for `ringway ctl errors`: the cold ends of the paths that refuse one.

use super::net::{Net, Stream};
use super::session::{Tally, Turn};
use crate::http::body::{Body, BodyFault};
use crate::http::reject::Fault;
use crate::malformed::{Kept, Message, Side, text};

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// Keeps a request whose head is refused at an offset. `bytes` begin with it.
    #[cold]
    pub(super) fn keep_request(&self, bytes: &[u8], fault: Fault, at: usize) {
        self.keep(|| self.client_peer(), || Kept::of_head(Side::Client, bytes, fault, at));
    }

    /// Keeps a request with a fault in its body: see [`Kept::of_body`].
    #[cold]
    pub(super) fn keep_body(&self, head: &[u8], body: &Body, fault: BodyFault, piece: &[u8]) {
        self.keep(|| self.client_peer(), || Kept::of_body(Side::Client, Some(head), body, fault, piece));
    }

    /// Keeps a response that is refused, of the backend that was tried last.
    #[cold]
    pub(super) fn keep_response(&self, tally: &Tally<N::Stream>, kept: impl FnOnce() -> Kept) {
        let peer = || {
            let cluster = tally.cluster.as_ref().map_or("", |cluster| cluster.shared.name.as_str());
            let Some(backend) = &tally.backend else { return text(cluster) };
            text(&format!("{cluster}/{} {}", backend.name, backend.endpoint))
        };
        self.keep(peer, kept);
    }

    fn client_peer(&self) -> String {
        self.info.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
    }

    fn keep(&self, peer: impl FnOnce() -> String, kept: impl FnOnce() -> Kept) {
        let core = self.core;
        core.stats.malformed.add(|number| {
            let view = core.view();
            let listener = view.settings.listener(self.info.listener).map_or("", |listener| listener.name.as_str());
            Message { number, unix: core.unix_seconds.get(), listener: text(listener), peer: peer(), kept: kept() }
        });
    }
}
