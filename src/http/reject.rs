//! Whose fault it is, stated in the type.

/// What is wrong with a message: one variant per rule that was broken.
///
/// [`Fault::clause`] names the rule's section, [`Fault::name`] the short word used in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// placeholder variant list is completed in this file
    Malformed,
}

/// A request that Ringway refuses: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status code of the answer (400, 413, 414, 417, 431, 501, 505).
    pub status: u16,
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in the message.
    pub at: usize,
}

/// A response that Ringway refuses: the backend's fault, answered to the client with 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in the message.
    pub at: usize,
}
