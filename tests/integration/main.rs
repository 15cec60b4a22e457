//! The real binary on real sockets, on both drivers, in order of difficulty.
//!
//! `harness` runs the proxy, `origin` is the server behind it, `client` the one before it; both read HTTP with `message`,
//! which shares nothing with the product. Every wait has an end.

mod client;
mod harness;
mod message;
mod openmetrics;
mod origin;
mod settings;

mod basic;
mod framing;

mod smuggling;

mod malformed;

mod why;
mod wire;
mod wire_case;

mod keepalive;

mod bodies;

mod early;
mod events;
mod explain;

mod upgrade;

mod headers;

mod routing;

mod balance;

mod failure;

mod health;

mod checks;

mod timeouts;

mod asleep;

mod close;

mod abort;

mod reload;

mod queue;

mod diff;
mod drain;

mod log;

mod phases;

mod limits;

mod parking;

mod storms;

mod metrics;

mod browser;
mod page;

mod death;

mod cli;
mod help;

mod import;

mod toy;
mod toy_server;
mod toy_suite;
