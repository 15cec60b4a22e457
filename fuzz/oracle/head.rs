//! Scanning finds the same end whole and byte by byte; what parses keeps the promises of its spans.

use ringway::http::Method;
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, RequestHead, ResponseHead, Scan, Underscores};
use ringway::http::reject::Fault;

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let whole = HeadScan::default().request(bytes);
    let mut scan = HeadScan::default();
    let split = (0..=bytes.len()).map(|end| scan.request(&bytes[..end])).find(|r| *r != Ok(Scan::Partial));
    assert_eq!(split.unwrap_or(Ok(Scan::Partial)), whole);

    // Also what no scan has let through must not harm the parsers.
    let mut request = RequestHead::default();
    let accepted = request.parse(bytes, Underscores::Drop).is_ok();
    if accepted {
        // The limit of empty lines is the scan's alone.
        let many_empty_lines = whole.is_err_and(|reject| reject.fault == Fault::LeadingEmptyLines);
        assert!(whole == Ok(Scan::Complete(bytes.len())) || many_empty_lines);
        assert!(!bytes.contains(&0) && request.framing != Framing::UntilClose);
        let target = [request.path.of(bytes), request.query.of(bytes)].concat();
        assert!(request.target.of(bytes).ends_with(&target) || target.is_empty());
        assert!(request.authority.of(bytes).starts_with(request.host.of(bytes)));
        for field in request.fields.iter() {
            let (name, value) = (field.name.of(bytes), field.value.of(bytes));
            assert!(!name.is_empty() && !name.contains(&b' ') && bytes[usize::from(field.name.end)] == b':');
            assert!(!value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f));
            assert_eq!(value, value.trim_ascii());
        }
    }

    let whole = HeadScan::default().response(bytes);
    let mut scan = HeadScan::default();
    let split = (0..=bytes.len()).map(|end| scan.response(&bytes[..end])).find(|r| *r != Ok(Scan::Partial));
    assert_eq!(split.unwrap_or(Ok(Scan::Partial)), whole);
    let mut response = ResponseHead::default();
    if response.parse(bytes, Method::Get).is_ok() {
        assert_eq!(whole, Ok(Scan::Complete(bytes.len())));
        assert!((100..600).contains(&response.status) && !bytes.contains(&0));
    }
}
