//! Lines as one types them to redis-cli, or a shell script that calls it.

use super::store::{At, Store};

/// Options of redis-cli that have a value.
const OPTIONS_WITH_VALUE: &[&[u8]] =
    &[b"-h", b"-p", b"-s", b"-a", b"-u", b"-r", b"-i", b"-d", b"-t", b"--user", b"--pass", b"--sni", b"--cacert"];

/// Applies all lines.
pub(super) fn read(bytes: &[u8], store: &mut Store) {
    // Some editors begin a file with this mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        let at = At::Line(i + 1);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match split(line) {
            Ok(words) => run(at, words, store),
            Err(why) => store.leave_out(at, b"", why),
        }
    }
}

/// One line in words: either a command, or `redis-cli` with options and the command.
fn run(at: At, mut words: Vec<Vec<u8>>, store: &mut Store) {
    if words.first().is_some_and(|w| w == b"$") {
        words.remove(0);
    }
    if !words.first().is_some_and(|w| w == b"redis-cli" || w.ends_with(b"/redis-cli")) {
        return store.apply(at, &words);
    }
    let mut database = 0;
    let mut rest = words.into_iter().skip(1).peekable();
    while let Some(option) = rest.next_if(|word| word.starts_with(b"-")) {
        if option == b"-n" {
            let number = rest.next().and_then(|n| String::from_utf8(n).ok()?.parse().ok());
            let Some(number) = number else { return store.leave_out(at, b"", "-n without the number of a database") };
            database = number;
        } else if OPTIONS_WITH_VALUE.contains(&option.as_slice()) {
            rest.next();
        }
    }
    let words: Vec<Vec<u8>> = rest.collect();
    if words.iter().flatten().any(|b| b"$`|;&<>".contains(b)) {
        let message = "a shell would make something else of this line, and it is not run (echo what it makes of it)";
        return store.leave_out(at, words.get(1).map_or(b"", Vec::as_slice), message);
    }
    // Each call is a connection of its own.
    let before = std::mem::replace(&mut store.database, database);
    store.apply(at, &words);
    store.database = before;
}

/// Splits a line by the rules of redis-cli: white space between words; `"..."` with `\n`, `\r`, `\t`, `\b`, `\a`,
/// `\xHH` and `\` before any other character; `'...'` with `\'`; white space or the end behind a closing quote.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            match byte {
                b'"' | b'\'' => {
                    rest = quoted(behind, byte, &mut word)?;
                    if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) {
                        return Err("a closing quote in the middle of a word");
                    }
                }
                _ if byte.is_ascii_whitespace() => break,
                _ => {
                    word.push(byte);
                    rest = behind;
                }
            }
        }
        words.push(word);
    }
}

/// Takes the inside of quotes, and gives what is behind them.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, word: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    loop {
        match *rest {
            [] => return Err("a quote without its end"),
            [b, ref behind @ ..] if b == quote => return Ok(behind),
            [b'\\', b'x', high, low, ref behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(high) << 4 | hex(low));
                rest = behind;
            }
            [b'\\', b, ref behind @ ..] if quote == b'"' || b == b'\'' => {
                word.push(match b {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                rest = behind;
            }
            [b, ref behind @ ..] => {
                word.push(b);
                rest = behind;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_redis_cli() {
        let words = |line: &str| {
            split(line.as_bytes())
                .map(|w| w.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(words("  a  b\tc "), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(words(r#""a b" 'c d' "" e"f""#), Ok(vec!["a b".into(), "c d".into(), "".into(), "ef".into()]));
        assert_eq!(words(r#""\x41\n\"\q" '\'\n'"#), Ok(vec!["A\n\"q".into(), "'\\n".into()]));
        for bad in ["\"a", "'a", "\"a\"b", "'a''b'", "\"\\"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
