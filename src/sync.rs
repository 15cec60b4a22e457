//! The locks and atomics that `publish` stands on: those of std. The model of it stands on others.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};
