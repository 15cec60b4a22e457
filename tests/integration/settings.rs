//! The config keys that tests change, in one place.

use serde_json::{Value, json};

pub const CONNECT: &str = "clusters/app/timeouts/connect";
pub const HEAD: &str = "clusters/app/timeouts/head";
pub const BODY: &str = "clusters/app/timeouts/body";
pub const TUNNEL: &str = "clusters/app/timeouts/tunnel";
pub const BODY_MAX: &str = "clusters/app/body_max";
pub const RETRIES: &str = "clusters/app/retries";
pub const QUEUE_MAX: &str = "clusters/app/queue/max";
pub const QUEUE_TIMEOUT: &str = "clusters/app/queue/timeout";
pub const RETRY_PERCENT: &str = "clusters/app/retry_budget/percent";
pub const RETRY_MIN: &str = "clusters/app/retry_budget/min_per_second";
pub const BALANCE: &str = "clusters/app/balance";
pub const FAIL_OPEN: &str = "clusters/app/fail_open";
pub const ON_TIMEOUT: &str = "clusters/app/health/on_timeout";
pub const HEALTH: &str = "clusters/app/health";
pub const PROBE: &str = "clusters/app/probe";
pub const PROBE_PATH: &str = "clusters/app/probe/path";
pub const CLIENT_HEAD: &str = "client/head_timeout";
pub const CLIENT_IDLE: &str = "client/idle_timeout";
pub const CLIENT_BODY: &str = "clusters/app/timeouts/client_body";
pub const CLIENT_RATE: &str = "clusters/app/client_rate_min";
pub const HALF_CLOSE: &str = "client/half_close";
pub const CONNECTIONS: &str = "limits/connections";
pub const UNDERSCORES: &str = "headers/underscores";
pub const DRAIN: &str = "drain_timeout";
pub const VIA: &str = "headers/via";
pub const STATUS: &str = "status/listen";
pub const HEALTH_PATH: &str = "listeners/main/health_path";
pub const TRUSTED: &str = "listeners/main/trusted_proxies";

/// Sets a key by its path; objects on the way are made.
pub fn set(config: &mut Value, path: &str, value: impl Into<Value>) {
    let mut at = config;
    for part in path.split('/') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value.into();
}
