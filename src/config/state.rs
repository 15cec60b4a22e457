//! What survives the end of the process, in the state file: patches over the config file, and what operators have
//! overruled. Neither stands in the config file, and neither can be found out again.

use super::orders::Wish;
use super::receipt::Applied;
use serde::{Deserialize, Serialize};

/// Version of the file's form.
pub const VERSION: u32 = 1;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub v: u32,
    /// Over the config file, the oldest first.
    pub patches: Vec<Applied>,
    /// In the order of clusters and backends.
    pub overrides: Vec<Override>,
}

/// An operator's word about one backend, above config and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Name of the cluster.
    pub cluster: String,
    /// The backend's id in it.
    pub backend: String,
    /// What is wished; never [`Wish::Up`].
    pub set: Wish,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// By whom.
    pub who: String,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl State {
    /// Reads a state file's text.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<State, String> {
        let state: State = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if state.v != VERSION {
            return Err(format!("version {} of a state file is not known here, {VERSION} is", state.v));
        }
        Ok(state)
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain values always serialise");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_way_and_another_version_is_refused() {
        let state = State {
            v: VERSION,
            patches: vec![Applied { at: 7, who: "uid 0".into(), patch: "{}".into() }],
            overrides: vec![Override {
                cluster: "app".into(),
                backend: "b1".into(),
                set: Wish::Weight(3),
                since: 1,
                until: Some(2),
                who: "uid 0".into(),
                why: None,
            }],
        };
        assert_eq!(State::parse(&state.to_text()), Ok(state));
        assert!(State::parse(r#"{"v": 2, "patches": [], "overrides": []}"#).unwrap_err().contains("version 2"));
        assert!(State::parse("{").is_err());
    }
}
