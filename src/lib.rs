//! Ringway: an HTTP/1.1 load-balancing reverse proxy for Linux on io_uring, one event loop per core.
//!
//! Modules in reading order. Left never names right:
//! `limits < http, route < exchange, event, config < supervisor, publish < metrics, worker, control < main`.
//! docs/ARCHITECTURE.md tells the life of a request and the life of a reload.
#![deny(clippy::await_holding_refcell_ref, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod limits;

pub mod http;
pub mod route;

pub mod affinity;
pub mod config;
pub mod cores;
pub mod event;
pub mod exchange;
pub mod malformed;
pub mod stories;

pub mod publish;
pub mod supervisor;
mod sync;

pub mod access_log;
pub mod control;
pub mod ctl;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod import;
pub mod metrics;
pub mod parse;
pub mod status_page;
pub mod worker;
