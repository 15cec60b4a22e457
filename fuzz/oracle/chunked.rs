//! A chunked body decodes the same in pieces of any size, and what is written from it decodes to the same again. Input:
//! the size of a piece, then the body.

use ringway::http::body::{Body, CHUNK_PREFIX_MAX, END_OF_CHUNK, LAST_CHUNK, chunk_prefix};
use ringway::http::framing::Framing;
use ringway::http::reject::Fault;

#[derive(Debug, PartialEq)]
struct Outcome {
    payload: Vec<u8>,
    consumed: usize,
    done: bool,
    trailers: Vec<u8>,
}

fn decode(input: &[u8], piece: usize) -> Result<Outcome, (Fault, usize)> {
    let mut body = Body::new(Framing::Chunked);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for part in input.chunks(piece) {
        let mut part = part.to_vec();
        let decoded = body.decode(&mut part).map_err(|f| (f.fault, consumed + f.at))?;
        assert!(decoded.payload.end <= decoded.consumed && decoded.consumed <= part.len());
        payload.extend_from_slice(&part[decoded.payload.clone()]);
        consumed += decoded.consumed;
        if body.is_done() {
            let room = decoded.consumed - decoded.payload.end;
            let framing = END_OF_CHUNK.len() + LAST_CHUNK.len() + body.trailers().len() + 2;
            assert!(decoded.payload.is_empty() || framing <= room);
            break;
        }
        assert_eq!(decoded.consumed, part.len());
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64);
    Ok(Outcome { payload, consumed, done: body.is_done(), trailers: body.trailers().to_vec() })
}

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let Some((&piece, input)) = bytes.split_first() else { return };
    let whole = decode(input, input.len().max(1));
    assert_eq!(decode(input, 1), whole);
    assert_eq!(decode(input, usize::from(piece).max(1)), whole);

    let Ok(Outcome { payload, done: true, trailers, .. }) = whole else { return };
    let mut again = Vec::new();
    if !payload.is_empty() {
        let mut room = [0; CHUNK_PREFIX_MAX];
        let used = chunk_prefix(payload.len(), &mut room);
        again = [&room[CHUNK_PREFIX_MAX - used..], &payload, END_OF_CHUNK].concat();
    }
    again.extend([LAST_CHUNK, &trailers, b"\r\n"].concat());
    let consumed = again.len();
    assert_eq!(decode(&again, 7), Ok(Outcome { payload, consumed, done: true, trailers }));
}
