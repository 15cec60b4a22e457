//! `ringway demo`
mod backend;
