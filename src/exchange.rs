//! One request and its response as a state machine: events in, actions out.
