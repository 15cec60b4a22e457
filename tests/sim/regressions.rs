//! Bugs that the simulation has found, by name.
