//! The dump of a Redis (RDB): what it holds of lists, in all encodings that lists have had. All other
//! values are passed over by their length.

use super::Unusable;
use super::pack::{self, Bytes};
use super::store::{At, Store};

/// What every dump begins with: a word, and four digits of its version.
const MAGIC: &[u8] = b"REDIS";
const HEAD_BYTES: usize = 9;

/// Whether this is the beginning of a dump.
pub(super) fn is_dump(bytes: &[u8]) -> bool {
    version(bytes).is_some()
}

fn version(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..HEAD_BYTES)?.strip_prefix(MAGIC)?;
    digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
}

/// Marks between the keys.
mod mark {
    pub const SLOT_INFO: u8 = 0xf4;
    pub const FUNCTION: u8 = 0xf5;
    pub const MODULE: u8 = 0xf7;
    pub const IDLE: u8 = 0xf8;
    pub const FREQUENCY: u8 = 0xf9;
    pub const AUXILIARY: u8 = 0xfa;
    pub const SIZES: u8 = 0xfb;
    pub const EXPIRY_MS: u8 = 0xfc;
    pub const EXPIRY_S: u8 = 0xfd;
    pub const DATABASE: u8 = 0xfe;
    pub const END: u8 = 0xff;
}

/// Types of values.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_BINARY: u8 = 5;
    pub const MODULE: u8 = 7;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const STREAM_3: u8 = 21;
    pub const HASH_WITH_TTLS: u8 = 24;
    pub const HASH_WITH_TTLS_IN_ONE_PIECE: u8 = 25;
    /// Those that are one string: maps, sets and hashes in one piece.
    pub const ONE_PIECE: &[u8] = &[9, 11, 12, 13, 16, 17, 20];
}

/// A node of a quicklist that is one element, not several.
const PLAIN: u64 = 1;
const PACKED: u64 = 2;

const INSTEAD: &str = "ask the server itself instead (--redis HOST:PORT), or take its append-only file (BGREWRITEAOF)";

/// Applies the dump at the beginning of `bytes`, and gives the offset behind it.
pub(super) fn read(bytes: &[u8], store: &mut Store) -> Result<usize, Unusable> {
    let Some(version) = version(bytes) else { return Err(Unusable::new(0, "this is not how a dump begins")) };
    let mut reader = Reader { input: Bytes::new(bytes, HEAD_BYTES) };
    let mut expires = false;
    loop {
        let at = reader.input.at;
        let done = match reader.byte()? {
            mark::END => break,
            mark::DATABASE => reader.length().map(|db| store.database = db),
            mark::AUXILIARY => reader.skip_strings(2),
            mark::FUNCTION => reader.skip_strings(1),
            mark::SIZES => reader.lengths(2),
            mark::SLOT_INFO => reader.lengths(3),
            mark::IDLE => reader.lengths(1),
            mark::FREQUENCY => reader.skip(1),
            mark::EXPIRY_MS | mark::EXPIRY_S => {
                expires = true;
                reader.skip(if bytes[at] == mark::EXPIRY_MS { 8 } else { 4 })
            }
            mark::MODULE => reader.lengths(1).and_then(|()| reader.skip_module()),
            kind => reader.pair(kind, at, version, std::mem::take(&mut expires), store),
        };
        done?;
    }
    let end = reader.input.at;
    // From version 5 on, the checksum of all that was before; 0 where the server was told not to make one.
    if version < 5 {
        return Ok(end);
    }
    let said = reader.input.array().map(u64::from_le_bytes).ok_or_else(|| reader.short())?;
    if said != 0 && said != pack::crc64(&bytes[..end]) {
        return Err(Unusable::new(end, "the checksum is another one: the dump is damaged"));
    }
    Ok(reader.input.at)
}

struct Reader<'a> {
    input: Bytes<'a>,
}

/// What stands where a length is expected.
enum Length {
    /// So many.
    Of(u64),
    /// No length: a string in one of the forms of its own.
    Form(u8),
}

impl Reader<'_> {
    fn short(&self) -> Unusable {
        Unusable::new(self.input.at, "the dump ends too early: it was not copied, or not written, in full")
    }

    fn byte(&mut self) -> Result<u8, Unusable> {
        self.input.byte().ok_or_else(|| self.short())
    }

    fn skip(&mut self, n: usize) -> Result<(), Unusable> {
        self.input.take(n).map(drop).ok_or_else(|| self.short())
    }

    fn any_length(&mut self) -> Result<Length, Unusable> {
        let at = self.input.at;
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Of(first.into()),
            (1, _) => Length::Of(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (3, _) => Length::Form(first & 0x3f),
            (_, 0x80) => Length::Of(u32::from_be_bytes(self.input.array().ok_or_else(|| self.short())?).into()),
            (_, 0x81) => Length::Of(u64::from_be_bytes(self.input.array().ok_or_else(|| self.short())?)),
            _ => return Err(Unusable::new(at, "a length should stand here: the dump is damaged")),
        })
    }

    fn length(&mut self) -> Result<u64, Unusable> {
        let at = self.input.at;
        match self.any_length()? {
            Length::Of(n) => Ok(n),
            Length::Form(_) => Err(Unusable::new(at, "a length should stand here: the dump is damaged")),
        }
    }

    fn lengths(&mut self, n: u64) -> Result<(), Unusable> {
        (0..n).try_for_each(|_| self.length().map(drop))
    }

    /// A length of bytes that must still be there.
    fn bytes_length(&mut self) -> Result<usize, Unusable> {
        let n = self.length()?;
        usize::try_from(n).ok().filter(|n| *n <= self.input.left()).ok_or_else(|| self.short())
    }

    /// A string, unpacked only if it is wanted.
    fn string(&mut self, wanted: bool) -> Result<Vec<u8>, Unusable> {
        let at = self.input.at;
        let (bytes, unpacked) = match self.any_length()? {
            Length::Of(n) => (usize::try_from(n).unwrap_or(usize::MAX), None),
            Length::Form(form @ 0..=2) => {
                let number = self.input.take(1 << form).ok_or_else(|| self.short())?;
                return Ok(pack::decimal(number));
            }
            Length::Form(3) => {
                let packed = self.bytes_length()?;
                (packed, Some(usize::try_from(self.length()?).unwrap_or(usize::MAX)))
            }
            Length::Form(_) => return Err(Unusable::new(at, "a string in a form that is not known")),
        };
        let bytes = self.input.take(bytes).ok_or_else(|| self.short())?;
        match unpacked {
            _ if !wanted => Ok(Vec::new()),
            None => Ok(bytes.to_vec()),
            Some(len) => pack::lzf(bytes, len).ok_or_else(|| Unusable::new(at, "a packed string that is damaged")),
        }
    }

    fn skip_strings(&mut self, n: u64) -> Result<(), Unusable> {
        (0..n).try_for_each(|_| self.string(false).map(drop))
    }

    /// A key and its value.
    fn pair(&mut self, kind: u8, at: usize, version: u32, expires: bool, store: &mut Store) -> Result<(), Unusable> {
        let key = self.string(true)?;
        if store.host(&key).is_none() {
            store.pass_over(&key);
            return self.skip_value(kind, at, version);
        }
        let place = At::Byte(at);
        match self.list(kind)? {
            Some(elements) => {
                store.put(place, &key, elements);
                if expires {
                    store.remark(
                        place,
                        &key,
                        "it has a time to live, which a route has not: it stays until it is taken away",
                    );
                }
                Ok(())
            }
            None => {
                store.leave_out(place, &key, "it is no list, and a Hipache could not read it either");
                self.skip_value(kind, at, version)
            }
        }
    }

    /// The elements of a list; `None`, with nothing read, if the value is none.
    fn list(&mut self, kind: u8) -> Result<Option<Vec<Vec<u8>>>, Unusable> {
        let mut elements = Vec::new();
        match kind {
            kind::LIST => {
                for _ in 0..self.length()? {
                    elements.push(self.string(true)?);
                }
            }
            kind::LIST_ZIPLIST => elements = self.packed(pack::ziplist)?,
            kind::LIST_QUICKLIST => {
                for _ in 0..self.length()? {
                    elements.append(&mut self.packed(pack::ziplist)?);
                }
            }
            kind::LIST_QUICKLIST_2 => {
                for _ in 0..self.length()? {
                    let at = self.input.at;
                    match self.length()? {
                        PLAIN => elements.push(self.string(true)?),
                        PACKED => elements.append(&mut self.packed(pack::listpack)?),
                        _ => return Err(Unusable::new(at, format!("a list in a form that is not known: {INSTEAD}"))),
                    }
                }
            }
            _ => return Ok(None),
        }
        Ok(Some(elements))
    }

    fn packed(&mut self, unpack: fn(&[u8]) -> Option<Vec<Vec<u8>>>) -> Result<Vec<Vec<u8>>, Unusable> {
        let at = self.input.at;
        let bytes = self.string(true)?;
        unpack(&bytes).ok_or_else(|| Unusable::new(at, "a list in one piece that is damaged"))
    }

    fn skip_value(&mut self, kind: u8, at: usize, version: u32) -> Result<(), Unusable> {
        match kind {
            kind::STRING | kind::LIST_ZIPLIST => self.skip_strings(1),
            kind::LIST | kind::SET | kind::LIST_QUICKLIST => {
                let n = self.length()?;
                self.skip_strings(n)
            }
            kind::HASH => {
                let n = self.length()?;
                self.skip_strings(n.saturating_mul(2))
            }
            kind::ZSET | kind::ZSET_BINARY => {
                for _ in 0..self.length()? {
                    self.skip_strings(1)?;
                    // As text behind its length (253 and more are no numbers and have none), or in 8 bytes.
                    let score = if kind == kind::ZSET_BINARY { 8 } else { usize::from(self.byte()?) };
                    self.skip(if score < 253 { score } else { 0 })?;
                }
                Ok(())
            }
            kind::LIST_QUICKLIST_2 => {
                for _ in 0..self.length()? {
                    self.lengths(1)?;
                    self.skip_strings(1)?;
                }
                Ok(())
            }
            // The earliest time at which one of the fields ends; then each field's own before it.
            kind::HASH_WITH_TTLS => {
                self.skip(8)?;
                for _ in 0..self.length()? {
                    self.lengths(1)?;
                    self.skip_strings(2)?;
                }
                Ok(())
            }
            kind::HASH_WITH_TTLS_IN_ONE_PIECE => self.skip(8).and_then(|()| self.skip_strings(1)),
            kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => self.skip_stream(kind),
            kind::MODULE => self.lengths(1).and_then(|()| self.skip_module()),
            _ if kind::ONE_PIECE.contains(&kind) => self.skip_strings(1),
            _ => {
                let message = format!("a value of type {kind} (dump of version {version}) cannot be read: {INSTEAD}");
                Err(Unusable::new(at, message))
            }
        }
    }

    /// The parts of a module's value, each behind its type, until the type 0.
    fn skip_module(&mut self) -> Result<(), Unusable> {
        loop {
            let at = self.input.at;
            match self.length()? {
                0 => return Ok(()),
                1 | 2 => self.lengths(1)?,
                3 => self.skip(4)?,
                4 => self.skip(8)?,
                5 => self.skip_strings(1)?,
                _ => return Err(Unusable::new(at, format!("a module's value that cannot be read: {INSTEAD}"))),
            }
        }
    }

    fn skip_stream(&mut self, kind: u8) -> Result<(), Unusable> {
        let nodes = self.length()?;
        self.skip_strings(nodes.saturating_mul(2))?;
        // Entries and the last id; from the second form on the first id, the greatest deleted one, and entries ever added.
        self.lengths(if kind == kind::STREAM { 3 } else { 8 })?;
        for _ in 0..self.length()? {
            self.skip_strings(1)?;
            self.lengths(if kind == kind::STREAM { 2 } else { 3 })?;
            for _ in 0..self.length()? {
                self.skip(16 + 8)?;
                self.lengths(1)?;
            }
            for _ in 0..self.length()? {
                self.skip_strings(1)?;
                self.skip(if kind == kind::STREAM_3 { 16 } else { 8 })?;
                for _ in 0..self.length()? {
                    self.skip(16)?;
                }
            }
        }
        Ok(())
    }
}
