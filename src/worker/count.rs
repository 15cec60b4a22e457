//! What remains on something that takes no new requests: control asks, so that it can say when it is safe to switch it off.

use super::Core;
use super::deadlines::Place;
use super::net::Net;
use crate::event::{Remains, TakenAway};
use crate::route::{BackendId, ClusterId};
use std::collections::BTreeMap;

impl<N: Net> Core<N> {
    /// Exchanges, tunnels and idle pooled connections on what was taken away, by cluster and endpoint; what has none is
    /// left out. Walks all busy connections: not for the path of a request.
    pub(super) fn remains(&self, on: &TakenAway) -> Vec<Remains> {
        let mut found: BTreeMap<(ClusterId, Option<BackendId>), Remains> = BTreeMap::new();
        let mut entry = |cluster: ClusterId, backend: Option<BackendId>, add: &dyn Fn(&mut Remains)| {
            add(found.entry((cluster, backend)).or_insert_with(|| Remains::of(cluster, backend)));
        };
        self.slots.places(|place| {
            let Place { cluster: Some(cluster), backend, tunnel, .. } = place else { return };
            if concerns(on, cluster, place) {
                entry(cluster, backend, &|remains| match (backend, tunnel) {
                    (_, true) => remains.tunnels += 1,
                    (Some(_), false) => remains.exchanges += 1,
                    (None, false) => remains.queued += 1,
                });
            }
        });
        for (cluster, backend, pooled) in self.clusters.pooled_of(&on.backends) {
            entry(cluster, Some(backend), &|remains| remains.pooled += pooled);
        }
        found.into_values().collect()
    }
}

fn concerns(on: &TakenAway, cluster: ClusterId, place: Place) -> bool {
    let waits = place.backend.is_none();
    (on.queued || !waits)
        && (place.backend.is_some_and(|backend| on.backends.contains(&backend))
            || on.clusters.contains(&cluster)
            || (on.rerouted.contains(&cluster) && place.epoch < on.epoch))
}
