//! The key of a route, `host/path`, brought to the form that decides whether two of them are the same.

use super::value::{Refusal, host_name};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Parses `host/path` to its host and path.
///
/// The host comes back in lower case and without trailing dot: a name, `*.suffix`, `*`, or an IPv6 literal in brackets
/// in the form of RFC 5952. The path is kept as it stands, raw, and is `/` where none was written.
pub fn parse(key: &str) -> Result<(String, String), Refusal> {
    for scheme in ["http://", "https://"] {
        if let Some(rest) = key.strip_prefix(scheme) {
            return Err(Refusal::write("a route has no scheme", rest));
        }
    }
    let at = key.find('/').unwrap_or(key.len());
    let (host, path) = key.split_at(at);
    Ok((parse_host(host, path)?, parse_path(host, path)?))
}

fn parse_host(host: &str, path: &str) -> Result<String, Refusal> {
    if host.is_empty() {
        return Err(Refusal::write("a route begins with a host", format_args!("*{path}")));
    }
    if host == "*" {
        return Ok("*".into());
    }
    if let Some(inner) = host.strip_prefix('[') {
        return parse_literal(inner, path);
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(Refusal::write("an IPv6 address stands in brackets", format_args!("[{host}]{path}")));
    }
    if let Some((name, _port)) = host.split_once(':') {
        return Err(Refusal::write(
            "a route names no port: all listeners share the routes",
            format_args!("{name}{path}"),
        ));
    }
    let Some(star) = host.find('*') else {
        return host_name(host);
    };
    if star == 0
        && let Some(suffix) = host.strip_prefix("*.")
        && !suffix.contains('*')
    {
        let suffix = host_name(suffix)?;
        // "*.0.0.1" would be a pattern over IPv4 addresses, which have no subdomains.
        if suffix.parse::<Ipv4Addr>().is_ok() {
            return Err(Refusal::new("an IP address has no subdomains"));
        }
        return Ok(format!("*.{suffix}"));
    }
    let message = "\"*\" stands alone or as the whole first label";
    let suffix = host.rsplit('*').next().unwrap_or_default().trim_start_matches(['.', '-']);
    Err(match host_name(suffix) {
        Ok(suffix) => Refusal::write(message, format_args!("*.{suffix}{path}")),
        Err(_) => Refusal::hint(message, "as in \"*\" or \"*.example.io\""),
    })
}

fn parse_literal(inner: &str, path: &str) -> Result<String, Refusal> {
    let Some((literal, rest)) = inner.split_once(']') else {
        return Err(Refusal::new("\"[\" without \"]\""));
    };
    let ip: Ipv6Addr = literal.parse().map_err(|_| Refusal::new(format!("{literal:?} is not an IPv6 address")))?;
    if rest.is_empty() {
        return Ok(format!("[{ip}]"));
    }
    Err(Refusal::write("a route names no port: all listeners share the routes", format_args!("[{ip}]{path}")))
}

fn parse_path(host: &str, path: &str) -> Result<String, Refusal> {
    if path.is_empty() {
        return Ok("/".into());
    }
    if let Some(at) = path.find(['?', '#']) {
        let message = "a route has no query: it is a prefix of the path";
        return Err(Refusal::write(message, format_args!("{host}{}", &path[..at])));
    }
    // The characters of RFC 3986 section 3.3; the path is compared byte by byte with what clients send.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if let Some(bad) = path.chars().find(|c| !(c.is_ascii() && fits(*c as u8))) {
        let mut buffer = [0; 4];
        let escaped: String = bad.encode_utf8(&mut buffer).bytes().map(|b| format!("%{b:02X}")).collect();
        return Err(Refusal::hint(
            format!("{bad:?} cannot stand in a path"),
            format!("paths are compared as clients send them: write {escaped}"),
        ));
    }
    for (at, _) in path.match_indices('%') {
        let hex = path.as_bytes().get(at + 1..at + 3);
        if !hex.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Refusal::hint("\"%\" without two hex digits", "write %25 for the character itself"));
        }
    }
    for segment in path.split('/') {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        if plain == "." || plain == ".." {
            return Err(Refusal::hint(
                format!("a path has no dot segments, and {segment:?} is one"),
                "requests with dot segments are refused, so it could never match",
            ));
        }
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_to_one_form() {
        for (key, host, path) in [
            ("app.example.io", "app.example.io", "/"),
            ("App.Example.IO./", "app.example.io", "/"),
            ("*.Web.example.io/api", "*.web.example.io", "/api"),
            ("*", "*", "/"),
            ("*/a/b/", "*", "/a/b/"),
            ("[2001:DB8:0:0::1]/x", "[2001:db8::1]", "/x"),
            ("192.0.2.7", "192.0.2.7", "/"),
            ("a_b.io/%7Euser/a:b", "a_b.io", "/%7Euser/a:b"),
        ] {
            assert_eq!(parse(key), Ok((host.into(), path.into())), "{key}");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (key, suggestion) in [
            ("/api", "write \"*/api\""),
            ("", "write \"*\""),
            ("app.io:8080/x", "write \"app.io/x\""),
            ("[::1]:80/x", "write \"[::1]/x\""),
            ("::1", "write \"[::1]\""),
            ("http://app.io/x", "write \"app.io/x\""),
            ("*app.io", "write \"*.app.io\""),
            ("*.*.app.io", "write \"*.app.io\""),
            ("a.io/x y", "paths are compared as clients send them: write %20"),
            ("a.io/ü", "paths are compared as clients send them: write %C3%BC"),
            ("a.io/x?y=1", "write \"a.io/x\""),
            ("a.io/%2", "write %25 for the character itself"),
        ] {
            assert_eq!(parse(key).unwrap_err().suggestion.as_deref(), Some(suggestion), "{key}");
        }
        for bad in [
            "a..b",
            "a.io/../b",
            "a.io/%2e%2E/b",
            "a.io/.",
            "a.io?x",
            "bücher.io",
            "-a.io",
            "*.",
            "[::1",
            "*.1.2.3.4",
            "a.*",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
