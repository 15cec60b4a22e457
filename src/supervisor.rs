//! Pure: (event, now) to actions. Hold-downs, probes, reload, drain.
